"""PriceCalculation: turns a model and a tariff into a price. Owns no data: every answer can be computed again.

Reads `pricing.requests.quick` and `pricing.requests.heavy`, writes `pricing.results`.
`formats` tells files apart by content and has them read by `stl`, `obj` (Wavefront OBJ) or `threemf` (3MF, out of an
archive), all of which use `scan` for words and numbers and hand over `triangles`; `mesh` measures these with the
help of `surface`; `sandbox` does both where a hostile file can hurt nobody, `measure` remembers and scales what was
measured, `domain` prices it. GLB, PLY, STEP and others are refused by name.
"""
