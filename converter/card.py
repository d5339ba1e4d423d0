"""The text of a bundle's CARD.md: what the model is for, from what it was made, how good, and where not to use it.

Only from the manifest, so the card cannot say what the manifest does not.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from agent.score.manifest import Manifest


def card_text(manifest: Manifest) -> str:
    """Markdown; the same manifest gives the same text. Never mentions its own digest."""
    kinds = ", ".join(f"`{name}`" for name in manifest.kinds.classes[1:])
    return f"""# {manifest.id}

A quantised boosting model for Wardwatch: a gate that sees every row (host and second), and a model of kinds that
sees the rows which the gate flags. Schema `{manifest.schema_id}` ({manifest.schema_digest},
{manifest.n_features} features). Needs wardwatch {manifest.min_agent_version} or newer. Version {manifest.version}.

**Finds**: {kinds}.

**Made from**: {_words(manifest.data)}

**Split**: {manifest.split}

**Decides** on whole numbers: flagged from a gate sum of {manifest.gate.threshold} on (x {manifest.gate.scale:.6g} log
odds); reported where the best kind leads benign by {manifest.kinds.lead} (x {manifest.kinds.scale:.6g}). No margin
differs from the trainer's by more than {manifest.gate.margin_bound:.2g} (gate) and
{manifest.kinds.margin_bound:.2g} (kinds).

## What its features could have learnt instead

{_leaks(manifest.data.get("leaks"))}

## On held-out runs, never trained on

{_table(manifest.metrics)}

## Parity with the float model

{_table(manifest.parity)}

## Where it does not hold

Trained on simulated wards with real tools, not on patients' traffic. Rates, devices and gateways of a real ward
differ; a site should learn its own normal before it raises alarms from this model alone. It has seen no radio
traffic and no attack outside the list above.

Tools: {_words(manifest.tools)}
"""


def _leaks(leaks: dict[str, Any] | None) -> str:
    """The leak report that ran before training, in words."""
    if not leaks:
        return (
            "Not looked into: this model was trained before `wardwatch-convert leaks` was a step."
        )
    low, high = leaks["control_auc_interval"]
    lines = [
        f"Labels permuted between runs, the same training: AUC {leaks['control_auc']} ({low} to {high}), macro-F1 "
        f"{leaks['control_macro_f1']} against {leaks['control_macro_f1_chance']} by chance: "
        + ("at chance, as it must be." if leaks["control_at_chance"] else "**not at chance**."),
        f"Withheld from training: {_names(leaks['withheld'])}.",
        f"Tell one run from the rest of its class in more than a fifth of the runs: {_names(leaks['flagged'])}"
        + (
            f"; **without a reason**: {_names(leaks['unjustified'])}."
            if leaks["unjustified"]
            else "; each with its reason in `converter/leaks.toml`."
        ),
        "Tell a class best alone (AUC): "
        + "; ".join(f"`{name}` {told}" for name, told in sorted(leaks["strongest"].items()))
        + ".",
    ]
    return "\n\n".join(lines)


def _names(names: list[str]) -> str:
    return ", ".join(f"`{name}`" for name in names) or "none"


def _words(values: dict[str, Any]) -> str:
    return (
        "; ".join(f"{name} {value}" for name, value in sorted(values.items()) if _is_plain(value))
        + "."
    )


def _is_plain(value: Any) -> bool:
    return isinstance(value, str | int | float)


def _table(values: dict[str, Any]) -> str:
    """One line a figure; nested figures by dotted name, long lists left to the manifest."""
    lines = ["| figure | value |", "|---|---|"]
    lines += [f"| {name} | {value} |" for name, value in _flat(values)]
    return "\n".join(lines)


def _flat(values: dict[str, Any], prefix: str = "") -> list[tuple[str, Any]]:
    found: list[tuple[str, Any]] = []
    for name, value in sorted(values.items()):
        if isinstance(value, dict):
            found += _flat(value, f"{prefix}{name}.")
        elif _is_plain(value):
            found.append((prefix + name, round(value, 6) if isinstance(value, float) else value))
    return found
