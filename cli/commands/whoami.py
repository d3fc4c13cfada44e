"""`jobworker whoami`: who the server takes one for."""

from datetime import UTC
from typing import TYPE_CHECKING

import click

from jobworker.cli.contexts import chosen
from jobworker.cli.options import OutputFormat, client_command, output_option, say_json
from jobworker.cli.quantities import moment_text

if TYPE_CHECKING:
    from jobworker.client.connection import Service


@click.command()
@output_option
@client_command
def whoami(service: "Service", output: OutputFormat) -> None:
    """Show the user and tenants that your certificate stands for, and at which server."""
    context = chosen(click.get_current_context())
    me = service.whoami()
    expiry = me.notAfter.ToDatetime(tzinfo=UTC)
    if output == "json":
        fields = {
            "common_name": me.commonName,
            "tenants": list(me.tenants),
            "serial": me.serial,
            "not_after": f"{expiry:%Y-%m-%dT%H:%M:%SZ}",
            "server": service.endpoint.server,
            "context": context and context.text,
        }
        say_json(fields)
        return
    click.echo(f"User:         {me.commonName}")
    click.echo(f"Tenants:      {', '.join(me.tenants) or '(none)'}")
    click.echo(f"Certificate:  {me.serial}, valid until {moment_text(expiry)}")
    click.echo(f"Server:       {service.endpoint.server}")
    if context is not None:
        click.echo(f"Context:      {context.text} ({context.source})")
