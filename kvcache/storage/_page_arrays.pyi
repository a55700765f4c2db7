from kvcache.storage.page_arrays import find_changed as find_changed
from kvcache.storage.page_arrays import inherit as inherit
from kvcache.storage.page_arrays import place as place
from kvcache.storage.page_arrays import release as release

ZERO_PAGE: int
NULL_PAGE: int
