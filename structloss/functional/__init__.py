"""The losses as functions, and :func:`render_parts`. Poses are [..., T, J, 3]: frames, joints, xyz; depth is channel 2.

Common to all losses:

* any number of leading batch dimensions, any strides; float64, float32, float16 or bfloat16 (half types are computed
  in float32); metres or millimetres, root-relative or not;
* the result is a 0-d tensor of the compute dtype; the gradient with respect to `pred` has the dtype of `pred`;
* no clips, no joints or no weight give 0, never NaN; a NaN in `pred` or `target` gives NaN;
* `weight` [..., T, J] >= 0 is visibility, confidence or a padding mask; what has weight 0 takes no part, whatever it
  holds. A bone, an angle or a step between frames weighs the product of its joints' weights;
* `reduction` is "mean" (`structloss.TERMS[name].count` says over what) or "sum";
* `check_finite=True` raises for NaN or infinite input instead of returning NaN; it synchronises a GPU;
* `backend` chooses the implementation, see :func:`structloss.use_backend`;
* differentiable in `pred`, once; works under torch.compile(fullgraph=True), autocast and no_grad, on fake and meta
  tensors; not inside torch.func's transforms (grad, vmap, ...), nor on sparse or nested tensors;
* where a length has no slope (joints without error, bones of no length) the gradient is 0, as is that of |x| at 0.

They raise ArgumentError (a ValueError) for shapes, devices, reductions, options and negative weights, DtypeError (also
a TypeError) for dtypes, UnknownNameError for names, BackendError for a backend that can't serve the call.
"""

from . import anatomy, fused, limbs, motion, parts, position, ranking
from ._call import REDUCTIONS

# Every public name of a module is one of the package's.
from .anatomy import *  # noqa: F403
from .fused import *  # noqa: F403
from .limbs import *  # noqa: F403
from .motion import *  # noqa: F403
from .parts import *  # noqa: F403
from .position import *  # noqa: F403
from .ranking import *  # noqa: F403

__all__ = ["REDUCTIONS"]
__all__ += (
    anatomy.__all__
    + fused.__all__
    + limbs.__all__
    + motion.__all__
    + parts.__all__
    + position.__all__
    + ranking.__all__
)
