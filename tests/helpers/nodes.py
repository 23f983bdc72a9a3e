"""The nodes of a graph, those in the bodies of its loops among them."""

from __future__ import annotations


def all_nodes(graph):
    nodes = []
    for node in graph.node:
        nodes.append(node)
        for attribute in node.attribute:
            nodes += all_nodes(attribute.g)
    return nodes
