"""Chat models of any kind, asked with a prompt and checked for their quotes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from warpseek import _warpseek
from warpseek._settings import Settings
from warpseek.errors import UsageError

_SERVICE = ("base_url", "api_key", "model")


def ask(
    llm: Any, prompt: _warpseek.Prompt, temperature: float, max_tokens: int, given: Settings
) -> dict[str, Any]:
    """Asks `llm`; returns the checked answer."""
    if llm is None or isinstance(llm, Mapping):
        service = dict(llm or {})
        unknown = sorted(set(service) - set(_SERVICE))
        if unknown:
            raise UsageError(f"llm has no setting {unknown[0]!r}: use {', '.join(_SERVICE)}")
        return prompt.send(
            service.get("base_url"),
            service.get("api_key"),
            service.get("model"),
            temperature,
            max_tokens,
            given,
        )
    messages = prompt.messages
    if hasattr(llm, "invoke"):
        reply = llm.invoke([(message["role"], message["content"]) for message in messages])
        name = getattr(llm, "model_name", None) or getattr(llm, "model", None)
    elif callable(llm):
        reply = llm(messages)
        name = getattr(llm, "__name__", None)
    else:
        raise UsageError(
            f"llm must be a function of messages, a LangChain chat model or a dict with base_url "
            f"and model, found {type(llm).__name__}"
        )
    return prompt.check(_text(reply), str(name or type(llm).__name__))


def _text(reply: Any) -> str:
    """The text of a reply: a string, or a message with content."""
    content = getattr(reply, "content", reply)
    if isinstance(content, list):
        parts = [part if isinstance(part, str) else part.get("text", "") for part in content]
        content = "".join(parts)
    if not isinstance(content, str):
        raise UsageError(
            f"llm must return a text or a message with a text as content, found "
            f"{type(reply).__name__}"
        )
    return content
