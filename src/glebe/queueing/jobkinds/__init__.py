"""Kinds of jobs by declaration: one table says where a kind keeps its switch, its pods, their numbers and its end.

``shipped.yaml`` is the table of the kinds that the queue knows from the beginning; a ConfigMap in the same form adds
further ones (:mod:`.declared`). :mod:`.model` is what a row says, :mod:`.parse` reads and checks rows, :mod:`.shapes`
is code for the three kinds whose pods stand nowhere as templates. Nothing else in the queue knows kinds.
"""
