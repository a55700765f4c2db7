"""The trees of a search in plain Python, a node at a time: what ``kvcache.world_model.tree`` is judged by."""

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


class _Tree:
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


def searched(model, config, roots, generators, envs):
    """As ``Search.run`` at one leaf a forward, up to the choice: visits ``[B, A]``, values ``[B]`` and depths."""
    trees = [_Tree(config, root, float(value)) for root, value in zip(_nodes(roots), roots.values, strict=True)]
    for tree, generator in zip(trees, generators, strict=True):
        noise = generator.dirichlet([config.dirichlet_alpha] * len(tree.root.priors))
        tree.root.priors = (1 - config.noise_fraction) * tree.root.priors + config.noise_fraction * noise
    depths = []
    for simulation in range(config.num_simulations):
        parents, actions = zip(*(tree.select() for tree in trees), strict=True)
        depths.append([len(tree.path) for tree in trees])
        found = model.forward_recurrent_inference(
            np.stack([parent.latent for parent in parents]), actions, envs, simulation
        )
        for row, (tree, child) in enumerate(zip(trees, _nodes(found), strict=True)):
            tree.expand(child, float(found.rewards[row]), float(found.values[row]))
    return np.stack([tree.root.visits for tree in trees]), np.array([tree.value for tree in trees]), np.array(depths)
