"""Controllers of admission checks: what is asked before a workload with quota may run.

:mod:`.activity`: whether a check can be worked on. :mod:`.approvals`: a person says yes or no. :mod:`.provisioning`:
an autoscaler brings nodes (ProvisioningRequests). Checks of other controllers are theirs.
"""
