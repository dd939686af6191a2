"""`python -m brewgraph`, and `accelerate launch -m brewgraph run spec.brew` on several ranks."""

from brewgraph.cli.main import main

if __name__ == "__main__":
    main()
