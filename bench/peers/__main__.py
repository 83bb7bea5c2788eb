"""`python -m bench.peers`: other servers beside ours."""

from bench.peers.command import main

if __name__ == "__main__":
    main(prog_name="python -m bench.peers")
