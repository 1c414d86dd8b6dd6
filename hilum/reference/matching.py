"""A day at a hospital, and what is so at its end."""

from __future__ import annotations

import importlib

from .markdown import code, table


def page() -> str:
    """The truth table of the day's scenario, which tests send through Hilum in many orders of arrival."""
    day = importlib.import_module("tests.hospital_day")  # this runs in a checkout only
    rows = [
        (uid, day.STORY[uid], code(outcome), ", ".join(orders), ", ".join(map(code, differing)))
        for uid, (outcome, orders, differing) in day.TRUTH.items()
    ]
    missing = " and ".join(sorted(day.WITHOUT_IMAGES))
    sent = [(name, str(len(queue))) for name, queue in day.QUEUES.items()]
    return "\n".join(
        [
            "# A day of orders and images",
            "",
            "The RIS, the registration desk, a reporting system and two modalities send what is listed in `tests/hospital_day.py`, each",
            "in its own order and the first three each over an MLLP connection of its own. At the end every study has the outcome that",
            "this table says, whoever was first, and whichever of the roles `hl7`, `grammar`, `orders` and `match` were killed (`kill -9`)",
            "meanwhile: `tests/system/test_hospital_day_on_kafka.py`. For what outcomes mean see",
            "[orders](../operations/orders.md#how-studies-fit).",
            "",
            table(("Study", "What happens", "Outcome", "Orders", "What differs"), rows),
            "",
            f"No images ever come for the orders {missing}: they are `no-images` once their window is over.",
            "",
            table(("Sender", "Sends so many"), sent),
        ]
    )
