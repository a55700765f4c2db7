"""The trees of a search in plain Python, a node at a time: what ``kvcache.world_model.tree`` is judged by.

``PythonTree`` is the search as it was before there were arrays.
"""

import math

import numpy as np


class _Bounds:
    """The least and the largest mean value that any node of one tree ever had: between them values are normalised."""

    def __init__(self):
        self.least, self.most = math.inf, -math.inf

    def see(self, value):
        self.least, self.most = min(self.least, value), max(self.most, value)

    def normalised(self, values):
        return (values - self.least) / (self.most - self.least) if self.most > self.least else values


class _Node:
    """A state of one environment's tree, and its children's statistics, action by action."""

    __slots__ = ("children", "key", "latent", "priors", "rewards", "value_sums", "visits")

    def __init__(self, latent, policy_logits, key):
        self.latent, self.key = latent, key  # [1, E]; the key of its context, where keys are chained
        weights = np.exp(policy_logits - policy_logits.max(), dtype=np.float64)
        self.priors = weights / weights.sum()
        actions = len(policy_logits)
        self.children = [None] * actions
        self.visits = np.zeros(actions, dtype=np.int64)
        self.value_sums = np.zeros(actions)  # of the children's own values
        self.rewards = np.zeros(actions)


def _nodes(found):
    """The states that an inference predicted, one of each row."""
    keys = found.keys or [None] * len(found.values)
    return [_Node(*each) for each in zip(found.latents, found.policy_logits, keys, strict=True)]


class PythonTree:
    """The search of one environment."""

    def __init__(self, config, root, value):
        self.config = config
        self.root = root
        self.bounds = _Bounds()
        self.value_sum, self.visits = value, 1
        self.path = []

    def select(self):
        """Follow the best children to one that is not expanded: its parent and the action that leads to it."""
        node, self.path = self.root, []
        while True:
            action = self._best(node)
            self.path.append((node, action))
            child = node.children[action]
            if child is None:
                return node, action
            node = child

    def _best(self, node):
        config, total = self.config, int(node.visits.sum())
        weight = math.log((1 + total + config.pb_c_base) / config.pb_c_base) + config.pb_c_init
        explored = weight * node.priors * math.sqrt(total) / (1 + node.visits)
        visited = node.visits > 0
        values = np.zeros(len(explored))
        if visited.any():
            means = node.value_sums[visited] / node.visits[visited]
            values[visited] = self.bounds.normalised(node.rewards[visited] + config.discount * means)
        if not total:  # nothing has been visited: the prior decides
            explored = node.priors
        return int(np.argmax(values + explored))

    def expand(self, child, reward, value):
        """Put ``child`` where the last selection ended, and count what it is worth all the way up."""
        parent, action = self.path[-1]
        parent.children[action] = child
        parent.rewards[action] = reward
        for node, action in reversed(self.path):
            node.visits[action] += 1
            node.value_sums[action] += value
            self.bounds.see(float(node.value_sums[action] / node.visits[action]))
            value = float(node.rewards[action]) + self.config.discount * value
        self.value_sum += value
        self.visits += 1
        self.bounds.see(self.value)

    @property
    def value(self):
        """The root's: the mean of what the model said of it and of what was counted since."""
        return self.value_sum / self.visits


class PendingTree(PythonTree):
    """A tree of which several leaves are chosen before the value of any is known ("virtual loss")."""

    def __init__(self, config, root, value):
        super().__init__(config, root, value)
        self.paths, self.pending = [], {}

    def select(self):
        chosen = super().select()
        self.paths.append(self.path)
        for node, action in self.path:
            self.pending[id(node), action] = self.pending.get((id(node), action), 0) + 1
        return chosen

    def _best(self, node):
        config, scores = self.config, []
        pending = [self.pending.get((id(node), action), 0) for action in range(len(node.visits))]
        total = int(node.visits.sum()) + sum(pending)
        weight = math.log((1 + total + config.pb_c_base) / config.pb_c_base) + config.pb_c_init
        for action, visits in enumerate(node.visits.tolist()):
            score = weight * node.priors[action] * math.sqrt(total) / (1 + visits + pending[action])
            if not total:
                score = node.priors[action]
            if visits:
                value = node.rewards[action] + config.discount * (node.value_sums[action] / visits)
                # A pending visit is one of the lowest value, 0.
                score = self.bounds.normalised(value) * (visits / (visits + pending[action])) + score
            scores.append(score)
        return int(np.argmax(scores))

    def expand(self, child, reward, value):
        self.path = self.paths.pop(0)
        for node, action in self.path:
            self.pending[id(node), action] -= 1
        parent, action = self.path[-1]
        if parent.children[action] is not None:  # of two leaves that are one state the first has made its node
            child, reward = parent.children[action], float(parent.rewards[action])
        super().expand(child, reward, value)


def searched(model, config, roots, generators, envs, kind=PythonTree):
    """As ``Search.run`` up to the choice: visits ``[B, A]``, values ``[B]`` and depths."""
    trees = [kind(config, root, float(value)) for root, value in zip(_nodes(roots), roots.values, strict=True)]
    for tree, generator in zip(trees, generators, strict=True):
        noise = generator.dirichlet([config.dirichlet_alpha] * len(tree.root.priors))
        tree.root.priors = (1 - config.noise_fraction) * tree.root.priors + config.noise_fraction * noise
    depths = []
    for first in range(0, config.num_simulations, config.leaves):
        chosen = []
        for _ in range(first, min(first + config.leaves, config.num_simulations)):
            chosen += [tree.select() for tree in trees]
            depths.append([len(tree.path) for tree in trees])
        parents, actions = zip(*chosen, strict=True)
        rows = [*envs] * (len(chosen) // len(trees))
        found = model.forward_recurrent_inference(np.stack([parent.latent for parent in parents]), actions, rows, first)
        for row, child in enumerate(_nodes(found)):
            trees[row % len(trees)].expand(child, float(found.rewards[row]), float(found.values[row]))
    return np.stack([tree.root.visits for tree in trees]), np.array([tree.value for tree in trees]), np.array(depths)
