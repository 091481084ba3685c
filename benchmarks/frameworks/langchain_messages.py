"""Messages as LangChain and LangGraph have them."""

from __future__ import annotations

from typing import Any

from langchain_core.messages import AIMessage, HumanMessage

from benchmarks.payloads import text


def message(number: int) -> Any:
    """Return a message of the user or the model."""
    return (HumanMessage if number % 2 else AIMessage)(text(number), id=f"m{number}")
