"""`python -m train.demo RUN`: ask a run about a picture, in a browser on this machine."""

from __future__ import annotations

from pathlib import Path

import click

from train.command_line import TrainingCommand, answering_options, cache_option, runs_option


@click.command(cls=TrainingCommand)
@click.argument("run")
@click.option("--port", type=click.IntRange(0, 65535), default=7860, help="0 takes a free one.")
@answering_options
@cache_option
@runs_option
def command(
    run: str, port: int, answers: Path | None, confidence: float, cache: Path, runs: Path
) -> None:
    """Answer questions about pictures that are dropped on a page, by RUN or an export's folder, as
    python -m train.predict does. The page is for this machine alone (127.0.0.1); Ctrl-C ends it."""
    from train.demo.server import HOST, Answering, Server
    from train.errors import TrainError
    from train.predict.__main__ import find
    from train.predict.asked import read_answers

    offered = None if answers is None else read_answers(answers)
    predictor = find(run, runs=runs, cache=cache)
    if offered is not None:
        predictor.offer(offered)
    try:
        server = Server(Answering(Path(run).name, predictor, confidence), port)
    except OSError as error:
        raise TrainError(f"--port {port}: {error.strerror}; name another one, or 0") from None
    click.echo(f"http://{HOST}:{server.server_port} (Ctrl-C ends it)")
    with server:
        try:
            server.serve_forever()
        except KeyboardInterrupt:
            click.echo("ended", err=True)


if __name__ == "__main__":
    command()
