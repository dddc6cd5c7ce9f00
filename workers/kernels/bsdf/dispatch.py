"""The door to surface models, for integrators and materials. Knows which model there is, and nothing inside it."""

from workers.kernels.bsdf.metal_rough import BsdfParams, BsdfState
from workers.kernels.bsdf.metal_rough import evaluate as evaluate_bsdf
from workers.kernels.bsdf.metal_rough import pdf as pdf_bsdf
from workers.kernels.bsdf.metal_rough import prepare as prepare_bsdf
from workers.kernels.bsdf.metal_rough import sample as sample_bsdf

__all__ = ["BsdfParams", "BsdfState", "evaluate_bsdf", "pdf_bsdf", "prepare_bsdf", "sample_bsdf"]
