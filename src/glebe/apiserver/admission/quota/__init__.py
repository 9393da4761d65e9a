"""ResourceQuota: what a namespace may use, exactly.

``usage`` says what one object uses, ``scopes`` which quotas concern it, ``ledger`` keeps the sums and the reservations,
``plugin`` refuses, ``status`` writes what is used into the quotas.
"""
