"""One message of each kind that a radiology department gets; nobody's data."""

from __future__ import annotations

PATIENT = "PID|1||SYNTH0001^^^NORTH^MR~990001^^^NATION^NI||Synthetic^Sam||19700101|M\r"
VISIT = "PV1|1|O|RAD^^^NORTH||||0001^Referring^Rita\r"
ORDER = "ORC|{control}|P0001^RIS|F0001^RIS||SC||^^^20260102110000||20260102100000\r"
REQUEST = "OBR|1|P0001^RIS|F0001^RIS|CTCHEST^CT chest^NORTH|||20260102100000|||||||||0001^Referring^Rita||A0001|RP1|SPS1|||||CT\r"
STUDY = "ZDS|2.25.3201^NORTH^Application^DICOM\r"
PROTOCOL = "IPC|A0001^RIS|RP1^RIS|2.25.3201|SPS1|CT|CTCHEST^CT chest^NORTH|CTROOM^CT room|CT01\r"
SCHEDULE = "SCH|1^RIS|1^RIS||||ROUTINE|||30|min|^^^20260102110000|||||0001^Referring^Rita||||0002^Entering^Ed\r"
DOCUMENT = "TXA|1|DI|TX|20260102100000||||||||D0001|||||AU\rOBX|1|TX|TEXT^Text^NORTH||Text||||||F\r"
TIMING = "TQ1|1||||||20260102110000\r"
MERGE = "MRG|SYNTH0002^^^NORTH^MR\r"


def _event(trigger: str) -> str:
    return f"EVN|{trigger}|20260102100000\r"


def _bodies() -> dict[str, str]:
    adt = {
        f"ADT^{trigger}^{structure}": _event(trigger) + PATIENT + VISIT
        for trigger, structure in (
            *((f"A0{number}", "ADT_A01") for number in (1, 4, 8)),
            *((f"A0{number}", f"ADT_A0{number}") for number in (2, 3, 5, 6)),
            ("A07", "ADT_A06"),
            ("A11", "ADT_A09"),
            ("A12", "ADT_A09"),
            ("A13", "ADT_A01"),
            ("A28", "ADT_A05"),
            ("A31", "ADT_A05"),
        )
    }
    merges = {
        "ADT^A18^ADT_A18": _event("A18") + PATIENT + MERGE + VISIT,
        "ADT^A34^ADT_A30": _event("A34") + PATIENT + MERGE,
        "ADT^A40^ADT_A39": _event("A40") + PATIENT + MERGE,
        "ADT^A47^ADT_A30": _event("A47") + PATIENT + MERGE,
        "ADT^A45^ADT_A45": _event("A45") + PATIENT + MERGE + VISIT,
        "ADT^A24^ADT_A24": _event("A24") + PATIENT + VISIT + PATIENT.replace("SYNTH0001", "SYNTH0003") + VISIT,
        "ADT^A37^ADT_A37": _event("A37") + PATIENT + VISIT + PATIENT.replace("SYNTH0001", "SYNTH0003") + VISIT,
    }
    controls = ("NW", "XO", "CA", "DC", "SC")
    orders = {f"ORM^O01^ORM_O01/{control}": PATIENT + VISIT + ORDER.format(control=control) + REQUEST + STUDY for control in controls}
    orders |= {
        f"OMI^O23^OMI_O23/{control}": PATIENT + VISIT + ORDER.format(control=control) + TIMING + REQUEST + PROTOCOL for control in controls
    }
    orders |= {f"OMG^O19^OMG_O19/{control}": PATIENT + VISIT + ORDER.format(control=control) + REQUEST for control in controls}
    appointments = {
        f"SIU^{trigger}^SIU_S12": SCHEDULE + PATIENT + VISIT + "RGS|1\rAIS|1||CTCHEST^CT chest^NORTH\r"
        for trigger in ("S12", "S13", "S14", "S15")
    }
    more = {
        "ORU^R01^ORU_R01": PATIENT + VISIT + REQUEST + "OBX|1|TX|REPORT^Report^NORTH||No \\T\\ clear finding.\\.br\\Second line||||||F\r",
        "MDM^T02^MDM_T02": _event("T02") + PATIENT + VISIT + DOCUMENT,
    }
    return adt | merges | orders | appointments | more


def message_set(prefix: str = "S", version: str = "2.5") -> list[str]:
    """The whole set, each with a control id of its own that begins with `prefix`."""
    found = []
    for number, (name, body) in enumerate(_bodies().items()):
        kind = name.partition("/")[0]
        found.append(f"MSH|^~\\&|RIS|NORTH|HILUM|NORTH|20260102100000||{kind}|{prefix}{number}|P|{version}\r{body}")
    return found
