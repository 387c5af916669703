"""Who calls, as the door that let them in tells it."""

from starlette.requests import Request

from lostwax.channel.domain import Client

_CLIENT = "lostwax.client"


def let_in(request: Request, client: Client) -> None:
    """The door has found out who calls, and they may."""
    request.scope[_CLIENT] = client


def calling_client(request: Request) -> Client:
    """The client that was let in with this request."""
    client: Client = request.scope[_CLIENT]
    return client
