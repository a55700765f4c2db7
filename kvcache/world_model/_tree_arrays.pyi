from kvcache.world_model.tree_arrays import backup as backup
from kvcache.world_model.tree_arrays import select as select
