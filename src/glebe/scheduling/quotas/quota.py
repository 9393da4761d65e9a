"""The quota tree: ClusterQueues under Cohorts, what each may use, borrow and lend, and what is in use.

``QuotaTree`` is the static part, built once per set of queues and cohorts. ``QuotaState`` is the mutable use in that
tree: ``add`` and ``remove`` are the only ways to change it, so that admission, forecast and (later) preemption all
account in the same way. A *cell* is the index of a (flavor, resource) pair. All numbers are plain ints (base units).

Semantics are Kueue's documented ones: a queue or cohort without ``lendingLimit`` shares its whole quota with its
cohort; with one, the part above the limit is *guaranteed*, i.e. never lent; use within the guaranteed part stays in the
node, the rest counts in the parent, too. ``borrowingLimit`` bounds what is used above the node's own (subtree) quota.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from glebe.scheduling.model import EVEN, ClusterQueue, Cohort, Quota, ResourceGroup

Cell = int
Need = tuple[tuple[Cell, int], ...]
UNLIMITED = 1 << 62


class QuotaTree:
    """Nodes are numbered: parents before children; ``paths[n]`` lists node indices from ``n`` to its root."""

    def __init__(self, queues: Iterable[ClusterQueue], cohorts: Iterable[Cohort]) -> None:
        cohorts = tuple(cohorts)
        self.cells: dict[tuple[str, str], Cell] = {}
        self.cell_names: list[tuple[str, str]] = []
        queue_list = sorted(queues, key=lambda q: q.name)
        groups: dict[str, tuple[ResourceGroup, ...]] = {c.name: c.resource_groups for c in cohorts}
        parents: dict[str, str | None] = {c.name: c.parent for c in cohorts}
        weights = {c.name: c.weight for c in cohorts}
        for name in [q.cohort for q in queue_list if q.cohort] + [p for p in parents.values() if p]:
            if name not in parents:  # named only: exists without quota and without parent
                parents[name], groups[name] = None, ()
        self.broken = _in_cycles(parents)
        order = _parents_first({n: p for n, p in parents.items() if n not in self.broken})
        self.names: list[str] = []
        self.parent: list[int] = []
        self.paths: list[tuple[int, ...]] = []
        self.cohort_index: dict[str, int] = {}
        self.queue_index: dict[str, int] = {}
        quotas: list[Mapping[Cell, Quota]] = []
        for name in order:
            self.cohort_index[name] = self._node(name, parents[name])
            quotas.append(self._quotas(groups[name]))
        for queue in queue_list:
            cohort = queue.cohort if queue.cohort not in self.broken else None
            self.queue_index[queue.name] = self._node(queue.name, cohort)
            quotas.append(self._quotas(queue.resource_groups))
        self.top = [path[-1] for path in self.paths]
        self.weight = [*(weights.get(name, EVEN) for name in order), *(q.weight for q in queue_list)]
        switches = {c.name: c.fair_sharing for c in cohorts}
        self.switch = [*(switches.get(name) for name in order), *(None for _ in queue_list)]  # of fair sharing
        self.cohorts = len(order)  # nodes below this number are cohorts, the others queues
        self.children: list[list[int]] = [[] for _ in self.names]
        for n, above in enumerate(self.parent):
            if above >= 0:
                self.children[above].append(n)
        self.queues_under: dict[int, list[int]] = {}  # by root
        for n in range(self.cohorts, len(self.names)):
            self.queues_under.setdefault(self.top[n], []).append(n)
        self._lendable: dict[int, dict[str, int]] = {}
        self._limits(quotas)
        self._heights()

    def _node(self, name: str, parent: str | None) -> int:
        index = len(self.names)
        above = self.cohort_index[parent] if parent else -1
        self.names.append(name)
        self.parent.append(above)
        self.paths.append((index, *self.paths[above]) if above >= 0 else (index,))
        return index

    def cell(self, flavor: str, resource: str) -> Cell:
        key = (flavor, resource)
        found = self.cells.get(key)
        if found is None:
            found = self.cells[key] = len(self.cell_names)
            self.cell_names.append(key)
        return found

    def _quotas(self, groups: Iterable[ResourceGroup]) -> Mapping[Cell, Quota]:
        return {self.cell(fq.flavor, r): q for g in groups for fq in g.flavors for r, q in fq.quotas.items()}

    def _limits(self, quotas: list[Mapping[Cell, Quota]]) -> None:
        nodes, cells = len(self.names), len(self.cell_names)
        self.nominal = [[quotas[n][c].nominal if c in quotas[n] else 0 for c in range(cells)] for n in range(nodes)]
        self.subtree = [list(row) for row in self.nominal]
        self.guaranteed = [[0] * cells for _ in range(nodes)]
        # The most that a node's use may count in its parent: its lent-out share plus what it may borrow.
        self.parent_cap = [[UNLIMITED] * cells for _ in range(nodes)]
        self.borrowing_limit: list[list[int | None]] = [[None] * cells for _ in range(nodes)]
        for n in reversed(range(nodes)):  # children before parents
            for c in range(cells):
                quota = quotas[n].get(c)
                total, guaranteed = self.subtree[n][c], 0
                if self.parent[n] < 0:
                    continue  # limits have a meaning only towards a parent
                if quota is not None and quota.lending_limit is not None:
                    guaranteed = max(0, total - quota.lending_limit)
                self.guaranteed[n][c] = guaranteed
                if quota is not None and quota.borrowing_limit is not None:
                    self.borrowing_limit[n][c] = quota.borrowing_limit
                    self.parent_cap[n][c] = total - guaranteed + quota.borrowing_limit
                self.subtree[self.parent[n]][c] += total - guaranteed
        # The nearest node on the way up with limits of its own: what is free there is what is free here.
        self.limiting: list[list[int]] = []
        for n in range(nodes):
            above = self.parent[n]
            own = [
                n
                if above < 0 or self.guaranteed[n][c] or self.parent_cap[n][c] < UNLIMITED
                else self.limiting[above][c]
                for c in range(cells)
            ]
            self.limiting.append(own)

    def _heights(self) -> None:
        """Height of a cohort above its lowest queues: 1 directly above ClusterQueues; 0 for a queue."""
        self.height = [0] * len(self.names)
        for n in reversed(range(len(self.names))):
            above = self.parent[n]
            if above >= 0:
                self.height[above] = max(self.height[above], self.height[n] + 1)

    def potential(self, node: int, cell: Cell) -> int:
        """What ``node`` could use at most, if nobody else used anything."""
        total, above = self.subtree[node][cell], self.parent[node]
        if above < 0:
            return total
        most = self.guaranteed[node][cell] + self.potential(above, cell)
        limit = self.borrowing_limit[node][cell]
        return most if limit is None else min(most, total + limit)

    def lendable(self, node: int) -> dict[str, int]:
        """What a cohort could lend at most to its members, by resource, summed over flavors."""
        found = self._lendable.get(node)
        if found is None:
            found = self._lendable[node] = {}
            for cell, (_, resource) in enumerate(self.cell_names):
                found[resource] = found.get(resource, 0) + self.potential(node, cell)
        return found

    def root(self, node: int) -> int:
        return self.top[node]


class QuotaState:
    """What is in use at every node of a tree."""

    __slots__ = ("_changes", "_memo", "_memo_version", "tree", "usage", "version")

    def __init__(self, tree: QuotaTree, usage: list[list[int]] | None = None) -> None:
        self.tree = tree
        self.usage = usage or [[0] * len(tree.cell_names) for _ in tree.names]
        self._changes = 0
        self.version = [0] * len(tree.names)  # by root node: another one after every change below it
        self._memo = [[0] * len(tree.cell_names) for _ in tree.names]
        self._memo_version = [[-1] * len(tree.cell_names) for _ in tree.names]

    def copy(self) -> QuotaState:
        return QuotaState(self.tree, [list(row) for row in self.usage])

    def with_added(self, needs: list[tuple[int, Need]]) -> QuotaState:
        """A throw-away state with more in use; it shares what does not change, and is valid until this one changes."""
        other = QuotaState.__new__(QuotaState)
        other.tree, other.usage, other.version = self.tree, list(self.usage), list(self.version)
        other._changes, other._memo, other._memo_version = self._changes, [], []
        for n in {n for node, _ in needs for n in self.tree.paths[node]}:
            other.usage[n] = list(self.usage[n])
        for node, need in needs:
            other.add(node, need)
        return other

    def available(self, node: int, cell: Cell) -> int:
        """What ``node`` may still take of ``cell``, borrowing included; never negative."""
        tree = self.tree
        node = tree.limiting[node][cell]
        if not self._memo_version:
            return self._available(node, cell)
        versions = self._memo_version[node]
        version = self.version[tree.top[node]]
        if versions[cell] != version:
            versions[cell] = version
            self._memo[node][cell] = self._available(node, cell)
        return self._memo[node][cell]

    def _available(self, node: int, cell: Cell) -> int:
        tree, usage = self.tree, self.usage
        path = tree.paths[node]
        top = path[-1]
        free = tree.subtree[top][cell] - usage[top][cell]
        for i in range(len(path) - 2, -1, -1):
            n = path[i]
            local = tree.guaranteed[n][cell] - usage[n][cell]
            cap = tree.parent_cap[n][cell]
            if local > 0:
                free = (free if free < cap else cap) + local
            else:
                cap += local
                if cap < free:
                    free = cap
        return free if free > 0 else 0

    def fits(self, node: int, need: Need) -> bool:
        available = self.available
        for cell, amount in need:  # noqa: SIM110 - a plain loop is faster, and this is asked very often
            if amount > available(node, cell):
                return False
        return True

    def add(self, node: int, need: Iterable[tuple[Cell, int]]) -> None:
        guaranteed, usage = self.tree.guaranteed, self.usage
        path = self.tree.paths[node]
        self._changes += 1
        self.version[path[-1]] = self._changes
        for cell, amount in need:
            for n in path:
                row = usage[n]
                local = guaranteed[n][cell] - row[cell]
                row[cell] += amount
                if local > 0:
                    amount -= local
                if amount <= 0:
                    break

    def remove(self, node: int, need: Iterable[tuple[Cell, int]]) -> None:
        guaranteed, usage = self.tree.guaranteed, self.usage
        path = self.tree.paths[node]
        self._changes += 1
        self.version[path[-1]] = self._changes
        for cell, amount in need:
            for n in path:
                row = usage[n]
                in_parent = row[cell] - guaranteed[n][cell]
                row[cell] -= amount
                if in_parent <= 0:
                    break
                amount = min(amount, in_parent)

    def is_again(self, root: int, version: int) -> None:
        """Everything below ``root`` is in use again as it was at ``version``: what was concluded then holds."""
        self.version[root] = version

    def borrowing_level(self, node: int, need: Need) -> int:
        """0: within the queue's own quota; else the height of the lowest cohort that carries it without borrowing."""
        highest, most = 0, self.tree.height[self.tree.top[node]]
        for cell, amount in need:
            level = self.level(node, cell, amount)
            if level > highest:
                highest = level
                if level == most:
                    break
        return highest

    def level(self, node: int, cell: Cell, amount: int) -> int:
        """``borrowing_level`` for one cell."""
        tree, usage = self.tree, self.usage
        for n in tree.paths[node]:
            used = usage[n][cell]
            if used + amount <= tree.subtree[n][cell]:
                return tree.height[n]
            amount -= max(0, tree.guaranteed[n][cell] - used)
        return tree.height[tree.root(node)]

    def own_room(self, node: int, cell: Cell) -> int:
        """What of the node's own (subtree) quota is unused."""
        return self.tree.subtree[node][cell] - self.usage[node][cell]


def _in_cycles(parents: Mapping[str, str | None]) -> frozenset[str]:
    """Cohorts on a parent cycle, or below one: no quota can be computed for them."""
    broken: set[str] = set()
    for name in sorted(parents):
        seen: list[str] = []
        at: str | None = name
        while at is not None and at not in seen and at not in broken:
            seen.append(at)
            at = parents.get(at)
        if at is not None:
            broken.update(seen)
    return frozenset(broken)


def _parents_first(parents: Mapping[str, str | None]) -> list[str]:
    def depth(name: str) -> int:
        above = parents[name]
        return 0 if above is None else 1 + depth(above)

    return sorted(parents, key=lambda name: (depth(name), name))
