"""Which instances count as a study's: one answer for lists, views and pages.

An instance that a rejection note names does not, nor does one of which nothing came but what waits in quarantine, as of another
patient. A rejection note is an instance like others, and does.
"""

#: Whether a row of `instance` counts.
COUNTS = """
    NOT EXISTS (
        SELECT FROM withdrawn
        WHERE withdrawn.sop_instance_uid = instance.sop_instance_uid AND withdrawn.study_instance_uid = instance.study_instance_uid)
    AND NOT EXISTS (
        SELECT FROM quarantine
        WHERE quarantine.study_instance_uid = instance.study_instance_uid AND quarantine.sop_instance_uid = instance.sop_instance_uid
            AND NOT EXISTS (
                SELECT FROM receipt
                WHERE receipt.sop_instance_uid = quarantine.sop_instance_uid
                    AND receipt.study_instance_uid = quarantine.study_instance_uid AND receipt.decision IS NOT NULL))
"""
