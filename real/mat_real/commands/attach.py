"""`mat attach`: a daemon in a host that somebody else made. Light to import."""

import click

from mat_real.commands.extras import explained


@click.command(
    "attach",
    short_help="Run a node, mapping server or DNS server inside another network namespace.",
    context_settings={"ignore_unknown_options": True},
)
@click.option(
    "--ns",
    "namespace",
    required=True,
    metavar="NODE",
    help="The host: netns:NAME, pid:NUMBER or path:FILE.",
)
@click.option(
    "--role",
    required=True,
    type=click.Choice(["mn", "cn", "ims", "dns"]),
    help="mn, cn: what `mat node run` does. ims: `mat ims serve`. dns: `mat dns serve`.",
)
@click.argument("options", nargs=-1, type=click.UNPROCESSED)
def attach(namespace: str, role: str, options: tuple[str, ...]) -> None:
    """Be a node, or one of its servers, in the network namespace of a host of an emulator's.

    OPTIONS are those of `mat node run`, `mat ims serve` or `mat dns serve`. Takes root, or
    CAP_SYS_ADMIN. How this is done in Mininet, CORE and others: docs/emulators.md.

    \b
    mat attach --ns netns:h1 --role mn --config mn.toml       a namespace with a name
    mat attach --ns pid:4711 --role cn --config cn.toml       that of a process, as in Mininet
    mat attach --ns path:/run/docker/netns/1a2b --role ims --config ims.toml
    """
    from mat_real.commands import dns, ims, node

    commands = {"mn": node.run, "cn": node.run, "ims": ims.serve, "dns": dns.serve}
    with explained("real"):
        _enter(namespace)
        name = f"mat attach --role {role}"
        commands[role].main(list(options), prog_name=name, standalone_mode=False)


def _enter(namespace: str) -> None:
    from mat_real.namespaces import NamespaceError, NodeRef

    try:
        NodeRef.parse(namespace).enter()
    except ValueError as error:
        raise click.UsageError(str(error)) from error
    except NamespaceError as error:
        raise click.ClickException(str(error)) from error
