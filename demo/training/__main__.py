"""python -m demo.training COMMAND: see --help."""

from demo.training.cli import main

raise SystemExit(main())
