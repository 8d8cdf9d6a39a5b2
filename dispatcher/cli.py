"""`dispatcher ...`: what an operator types. Errors are sentences, and exit codes are documented."""

import click


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="codepipeline-dispatcher")
def main() -> None:
    """Takes AWS CodePipeline jobs of partner and custom actions to your workers."""
