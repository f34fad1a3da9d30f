"""Numbers that are joined two by two into sets (union-find)."""


class DisjointSets:
    """The numbers below `count`, at first each a set of its own."""

    def __init__(self, count: int) -> None:
        self._parent = list(range(count))

    def root(self, number: int) -> int:
        """A member that stands for the set of a number: equal roots, one set. Another one after the next `join`."""
        parent = self._parent
        while parent[number] != number:
            parent[number] = parent[parent[number]]
            number = parent[number]
        return number

    def join(self, one: int, other: int) -> None:
        """Make the sets of two numbers one."""
        self._parent[self.root(one)] = self.root(other)
