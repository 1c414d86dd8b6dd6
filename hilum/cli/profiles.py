"""`hilum dest profiles`: what is known of the products that Hilum sends to."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from hilum.cli.context import JsonOption, out, show_json, show_table

if TYPE_CHECKING:  # the command line starts faster without
    from hilum.profiles import Profile


def list_profiles(
    name: Annotated[str, typer.Argument(help="Show everything that this profile says.")] = "",
    json: JsonOption = False,
) -> None:
    """List destination profiles, or show one: each fact with its ground (documented, reported or default) and its source."""
    from hilum import profiles

    if name:
        _show(profiles.profile(name), json)
        return
    found = [profiles.profile(each) for each in profiles.names()]
    counts = [{basis: sum(row.basis == basis for row in each.rows() if not row.inherited) for basis in profiles.BASES} for each in found]
    if json:
        show_json(
            [
                {
                    "name": each.name,
                    "title": each.title,
                    "vendor": each.vendor,
                    "versions": each.versions,
                    "types": each.types,
                    "stub": each.is_stub,
                    **count,
                }
                for each, count in zip(found, counts, strict=True)
            ]
        )
        return
    rows = [
        (each.name, each.title, each.vendor, ", ".join(each.types), *count.values(), "a stub" if each.is_stub else "")
        for each, count in zip(found, counts, strict=True)
    ]
    show_table("", ("Profile", "Product", "Vendor", "Types", "Documented", "Reported", "Default", ""), rows)


def _show(chosen: Profile, json: bool) -> None:
    rows = chosen.rows()
    if json:
        show_json({"name": chosen.name, "title": chosen.title, "vendor": chosen.vendor, "versions": chosen.versions, "facts": rows})
        return
    out.print(f"{chosen.title} ({chosen.vendor or 'any vendor'}; versions: {chosen.versions or 'not known'})", markup=False)
    if chosen.is_stub:
        out.print("A stub: how this product takes objects is not known here; the values are Hilum's defaults, to be confirmed on site.")
    shown = [(row.field, row.value, f"{row.basis} (inherited)" if row.inherited else row.basis, row.says, row.source) for row in rows]
    show_table("", ("Field", "Value", "Basis", "", "Source"), shown)
