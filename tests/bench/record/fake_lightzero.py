"""A world model and a search that keep caches the way LightZero 0.2.0 does, and nothing else of it.

Contexts are only sizes, latents are small random vectors, the search picks nodes at random. Names are LightZero's.
"""

from __future__ import annotations

from collections import defaultdict
from types import SimpleNamespace

import numpy as np

from kvcache.geometry import Geometry
from kvcache.hashing import hash_state

LATENT_SHAPE = (1, 4)


class FakeWorldModel:
    """Sizes instead of keys and values; the dictionaries and pools are as LightZero has them."""

    def __init__(self, env_num: int = 3, context_length: int = 8, num_simulations: int = 4) -> None:
        self.config = SimpleNamespace(num_layers=1, num_heads=1, embed_dim=4, rotary_emb=True)
        self.env_num = env_num
        self.context_length = context_length
        self.past_kv_cache_init_infer_envs = [defaultdict(dict) for _ in range(env_num)]
        self.past_kv_cache_recurrent_infer = defaultdict(dict)
        self.shared_pool_size_init = 2
        self.shared_pool_size = env_num * num_simulations
        self._init_pools = [[0] * self.shared_pool_size_init for _ in range(env_num)]
        self._recur_pool = [0] * self.shared_pool_size
        self._writes = defaultdict(int)
        self.keys_values_wm = SimpleNamespace(size=0)
        self.keys_values_wm_size_list = []
        self.reanalyze_phase = False
        self.constant_latents = False  # an untrained model: it predicts the same latent everywhere
        self.generated = []
        self._random = np.random.default_rng(0)

    def forward_initial_inference(self, obs_act_dict, start_pos=0):
        latents = obs_act_dict["obs"]
        current = obs_act_dict["current_obs"]
        self.wm_forward_for_initial_infererence(latents, obs_act_dict["action"], current, start_pos)
        self.past_kv_cache_recurrent_infer.clear()
        return latents if current is None else current

    def wm_forward_for_initial_infererence(
        self, last_obs_embeddings, batch_action=None, current_obs_embeddings=None, start_pos=0
    ):
        if current_obs_embeddings is None or len(last_obs_embeddings) > self.env_num:
            return
        if max(batch_action) == -1:
            self.keys_values_wm.size = 1
        else:
            self.keys_values_wm_size_list = []
            for env in range(len(current_obs_embeddings)):
                slot = self.past_kv_cache_init_infer_envs[env].get(_name(last_obs_embeddings[env]))
                self._take(None if slot is None else self._init_pools[env][slot], last_obs_embeddings[env])
            self.trim_and_pad_kv_cache(is_init_infer=True)
            self.keys_values_wm.size += 2
        self.update_cache_context(current_obs_embeddings, is_init_infer=True)

    def forward_recurrent_inference(self, state_action_history, simulation_index=0, search_depth=(), start_pos=0):
        latents, _ = state_action_history[-1]
        self.keys_values_wm_size_list = []
        self.retrieve_or_generate_kvcache(latents, len(latents), simulation_index, start_pos)
        self.trim_and_pad_kv_cache(is_init_infer=False)
        self.keys_values_wm.size += 2
        new = np.zeros_like(latents) if self.constant_latents else draw(self._random, len(latents))
        self.update_cache_context(new, is_init_infer=False, simulation_index=simulation_index)
        return new

    def retrieve_or_generate_kvcache(self, latent_state, ready_env_num, simulation_index=0, start_pos=0):
        for env in range(ready_env_num):
            name = _name(latent_state[env])
            size = None
            if not self.reanalyze_phase:
                slot = self.past_kv_cache_init_infer_envs[env].get(name)
                if slot is not None:
                    size = self._init_pools[env][slot]
                else:
                    size = self._recur_pool[self.past_kv_cache_recurrent_infer.get(name)]
            self._take(size, latent_state[env])
        return self.keys_values_wm_size_list

    def _take(self, size, latent):
        if size is None:
            self.generated.append(hash_state(latent))
        self.keys_values_wm_size_list.append(1 if size is None else size)

    def trim_and_pad_kv_cache(self, is_init_infer=True):
        self.keys_values_wm.size = max(self.keys_values_wm_size_list)
        return self.keys_values_wm_size_list

    def update_cache_context(self, latent_state, is_init_infer=True, simulation_index=0):
        geometry = Geometry(context_length=self.context_length)
        if not geometry.keeps_past:
            return
        _, size = geometry.window(self.keys_values_wm.size)
        for env, latent in enumerate(latent_state):
            pool = self._init_pools[env] if is_init_infer else self._recur_pool
            slot = self._writes[id(pool)] % len(pool)
            self._writes[id(pool)] += 1
            pool[slot] = size
            names = self.past_kv_cache_init_infer_envs[env] if is_init_infer else self.past_kv_cache_recurrent_infer
            names[_name(latent)] = slot

    def clear_caches(self):
        for names in self.past_kv_cache_init_infer_envs:
            names.clear()
        self.past_kv_cache_recurrent_infer.clear()


class FakeTree:
    """Stands for the module of the compiled tree: picks a node that was made before, for every row."""

    def __init__(self) -> None:
        self.random = np.random.default_rng(1)
        self.batch_traverse = self.traverse  # an attribute of its own, as a module's function is

    def traverse(self, rows: int, simulation: int):
        steps = self.random.integers(0, simulation + 1, rows).tolist()
        return steps, list(range(rows)), [0] * rows, [-1] * rows


class FakeRun:
    """Collects: one search after another, with the observations and actions that a collector keeps."""

    def __init__(self, model: FakeWorldModel, num_simulations: int = 4) -> None:
        self.model = model
        self.tree = FakeTree()
        self.num_simulations = num_simulations
        self.results = []
        self.traversed = []  # of every simulation: the node of each row, as (step, row)
        self._random = np.random.default_rng(2)
        self.restart()

    def restart(self) -> None:
        """An episode ends: the next search is a first step again."""
        self.last = np.zeros((self.model.env_num, *LATENT_SHAPE), np.float32)
        self.action = [-1] * self.model.env_num

    def search(self, searches: int = 1) -> None:
        rows = self.model.env_num
        for _ in range(searches):
            current = draw(self._random, rows)
            root = self.model.forward_initial_inference(
                {"obs": self.last, "action": self.action, "current_obs": current}
            )
            nodes = [root]
            for simulation in range(self.num_simulations):
                steps, batch, actions, _ = self.tree.batch_traverse(rows, simulation)
                self.traversed.append(list(zip(steps, batch, strict=True)))
                latents = np.stack([nodes[step][row] for step, row in self.traversed[-1]])
                depths = [step + 1 for step in steps]
                nodes.append(self.model.forward_recurrent_inference([(latents, actions)], simulation, depths))
            self.results.append(np.stack(nodes))
            self.last, self.action = current, [0] * rows


def draw(random: np.random.Generator, rows: int) -> np.ndarray:
    """Latents that nobody saw before."""
    return random.standard_normal((rows, *LATENT_SHAPE)).astype(np.float32)


def _name(latent) -> str:
    return f"{hash_state(latent):016x}"
