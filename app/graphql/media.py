"""Which media type an answer has: GraphQL over HTTP's negotiation."""

GRAPHQL = "application/graphql-response+json"
JSON = "application/json"
EVENTS = "text/event-stream"

_OFFERS = {
    GRAPHQL: GRAPHQL,
    JSON: JSON,
    EVENTS: EVENTS,
    "application/*": JSON,
    "*/*": JSON,
}


def negotiate(accept: str) -> str | None:
    """The best of what `accept` allows, JSON if it allows everything; None when it allows nothing of ours."""
    if not accept.strip():
        return JSON
    best, best_quality = None, 0.0
    for part in accept.split(","):
        name, *parameters = (piece.strip().lower() for piece in part.split(";"))
        offer, quality = _OFFERS.get(name), _quality(parameters)
        if offer is not None and quality > best_quality:
            best, best_quality = offer, quality
    return best


def prefers_html(accept: str) -> bool:
    """Whether a client names HTML, and nothing of ours that it likes as much: a browser that opens a page."""
    qualities = dict.fromkeys(("text/html", GRAPHQL, JSON, EVENTS), 0.0)
    for part in accept.split(","):
        name, *parameters = (piece.strip().lower() for piece in part.split(";"))
        if name in qualities:
            qualities[name] = max(qualities[name], _quality(parameters))
    html = qualities.pop("text/html")
    return html > max(qualities.values())


def _quality(parameters: list[str]) -> float:
    for parameter in parameters:
        name, _, value = parameter.partition("=")
        if name.strip() == "q":
            try:
                return float(value)
            except ValueError:
                return 0.0
        if name.strip() == "charset" and value.strip(' "') not in ("utf-8", "utf8"):
            return 0.0
    return 1.0


def is_json(content_type: str) -> bool:
    """Whether a request's body is JSON in UTF-8. Only this type is taken: browsers ask before they send it
    to another origin."""
    name, *parameters = (piece.strip().lower() for piece in content_type.split(";"))
    return name == JSON and _quality(parameters) > 0
