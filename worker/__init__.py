"""Forecast worker: feature events from Kafka, batches through an engine, forecasts back to Kafka, exactly once.

Reading order, which is the data's way:

    settings_model        every setting, with its default and bounds; `settings` loads them, `settings_checks` compares them
    errors                the exceptions, and what holds after each
    records               Record and Records, Rejection, Positions: values that the other files pass on
    source                where records come from: poll, rewind, hold, rebalances
    decode                a poll's Avro values -> rows of float32, or a rejection each (`framing`, `avro*` do the details)
    batching              rows -> Batch: when it is cut, and which positions it seals
    engine                what the loop asks of an engine, and who owns which memory; `contract` compares model and schema
    onnx_engine, hotswap  ONNX Runtime as an engine; which engine serves
    pipeline              from gathered rows to a commit: submit, collect, publish, commit, or discard it all
    guard, encode         forecasts are checked, then become Avro messages with provenance
    publish               a finished batch becomes messages
    transaction           messages and positions are committed together, or not at all
    loop                  Worker.step: one turn of the above; what a rebalance, an error or a stop does in between
    breaker, watchdog     stop before a topic is drained into the dead letters; leave when a call doesn't come back
    statistics            what was counted; `metrics` and `health` show it
    freshness             which keys were served when; `catching_up`: what was skipped while behind
    replay                a span of the topic through the same parts, once; its file names the others, `replay_*`
    compose, __main__     the only places that name concrete classes; the command line

Core types, each made in one place and handed on:

    Records -> Decoded -> Batch -> Ticket -> Forecasts -> Outgoing     the data
                          Positions                                    how far it is done: sealed with the batch, spent
                                                                       by the commit
    Slot                                                               memory for one batch, owned by one at a time
    Deadline                                                           the moment by which a task must be done
    Statistics                                                         what other threads may see

`docs/architecture.md` has the threads, the ownership rules and the invariants with their tests.
"""
