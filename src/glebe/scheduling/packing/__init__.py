"""Which machine, and which of its GPUs, for a pod that wants whole GPUs or a share of one; and what to move later.

Pure. Best-fit leaves GPUs that nobody can use: slivers too small for what usually comes, and GPUs without CPUs beside
them. Here every pod goes where the machine loses least of what pods like those that have arrived so far could use: the
fragmentation of FGD (Weng et al., USENIX ATC 2023), made of the distribution of arrivals instead of a known workload,
and beside it how well the CPUs and the memory that are left go with the GPUs that are left.
"""

from glebe.scheduling.packing.demand import Ask, Demand
from glebe.scheduling.packing.machines import Machine, Machines, Spot
from glebe.scheduling.packing.packer import Packer

__all__ = ["Ask", "Demand", "Machine", "Machines", "Packer", "Spot"]
