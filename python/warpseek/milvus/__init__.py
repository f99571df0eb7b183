"""Exchange with Milvus: the rows of an index as a collection, and a collection as an index.

Needs pymilvus. Searches go on over warpseek's own rows, where they are exact: Milvus is not
searched, since its scores do not have the same bits and its filters are another language.

>>> export_index("papers", "http://localhost:19530", "papers")["rows"]
41584
>>> with import_index("http://localhost:19530", "papers", "copy") as index:
...     index.search("graph neural networks")
"""

from warpseek.milvus._export import export_index
from warpseek.milvus._import import import_index

__all__ = ["export_index", "import_index"]
