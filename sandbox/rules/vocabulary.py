"""What candidate code may import and call, and which attributes it may not touch.

Modules get a list of what is allowed, because torch and most of the standard library lead to
files, processes and other modules within one or two attributes (`torch.os`,
`torch.special.torch`). Other objects get a list of what is not, because nobody can list the
attributes of a program that is yet to be written.
"""

from __future__ import annotations

from collections.abc import Mapping

__all__ = [
    "ALLOWED",
    "BUILTINS",
    "DENIED_ATTRIBUTES",
    "DENIED_NAMES",
    "why_not_allowed",
    "why_not_imported",
]


def _names(text: str) -> frozenset[str]:
    return frozenset(text.split())


_TORCH = _names(
    """
    abs add addbmm addcdiv addcmul addmm addmv addr adjoint all allclose amax amin aminmax
    angle any arange arctan2 argmax argmin argsort argwhere as_tensor asarray asin asinh
    atan atan2 atanh atleast_1d atleast_2d atleast_3d baddbmm bernoulli bitwise_and
    bitwise_left_shift bitwise_not bitwise_or bitwise_right_shift bitwise_xor block_diag bmm
    broadcast_shapes broadcast_tensors broadcast_to bucketize cat cdist ceil chunk clamp
    clamp_max clamp_min clip clone column_stack complex concat concatenate conj copysign
    corrcoef cos cosh cosine_similarity count_nonzero cov cross cummax cummin cumprod cumsum
    cumulative_trapezoid det detach diag diag_embed diagflat diagonal diagonal_scatter diff
    digamma dist div divide dot einsum empty empty_like eq equal erf erfc erfinv exp exp2
    expm1 eye fill fix flatten flip fliplr flipud float_power floor floor_divide fmax fmin
    fmod frac frexp full full_like gather ge gradient greater greater_equal gt hardshrink
    heaviside histc histogram hypot imag index_add index_fill index_put index_reduce
    index_select inner inverse is_complex is_floating_point is_nonzero is_same_size
    is_signed is_tensor isclose isfinite isin isinf isnan isneginf isposinf isreal kron
    kthvalue le lerp less less_equal lgamma linspace log log10 log1p log2 log_softmax
    logaddexp logaddexp2 logcumsumexp logdet logical_and logical_not logical_or logical_xor
    logspace logsumexp lt masked_fill masked_scatter masked_select matmul matrix_exp
    matrix_power max maximum mean median meshgrid min minimum mm moveaxis movedim msort mul
    multinomial multiply mv nan_to_num nanmean nanmedian nanquantile nansum narrow ne neg
    negative nextafter nonzero norm normal not_equal numel ones ones_like outer
    pairwise_distance permute pinverse polygamma positive pow prod quantile rand rand_like
    randint randint_like randn randn_like randperm ravel real reciprocal relu remainder
    repeat_interleave reshape rms_norm roll rot90 round rsqrt scalar_tensor scatter
    scatter_add scatter_reduce searchsorted select select_scatter sgn sigmoid sign signbit
    sin sinc sinh slice_scatter slogdet softmax solve sort split split_with_sizes sqrt
    square squeeze stack std std_mean sub subtract sum swapaxes swapdims t take
    take_along_dim tan tanh tensor tensor_split tensordot tile topk trace transpose
    trapezoid trapz tril tril_indices triu triu_indices true_divide trunc unbind unflatten
    unique unique_consecutive unsqueeze var var_mean vdot view_as_complex view_as_real vmap
    vsplit vstack where xlogy zero_ zeros zeros_like

    Generator Size Tensor device dtype finfo enable_grad inference_mode no_grad
    bfloat16 bool complex64 double float float16 float32 float64 half int int32 int64 int8 long
    uint8 contiguous_format preserve_format e inf nan pi
    """
)

_LINALG = _names(
    """
    LinAlgError cholesky cholesky_ex cond det diagonal eig eigh eigvals eigvalsh
    householder_product inv inv_ex ldl_factor ldl_solve lstsq lu lu_factor lu_solve matmul
    matrix_exp matrix_norm matrix_power matrix_rank multi_dot norm pinv qr slogdet solve solve_ex
    solve_triangular svd svdvals vecdot vector_norm
    """
)

_FUNCTIONAL = _names(
    """
    cosine_similarity elu gelu glu hardshrink hardsigmoid hardswish hardtanh huber_loss leaky_relu
    linear log_softmax logsigmoid mish mse_loss normalize one_hot pad relu relu6 rms_norm sigmoid
    silu smooth_l1_loss softmax softmin softplus softshrink softsign tanh tanhshrink
    """
)

_MATH = _names(
    """
    acos acosh asin asinh atan atan2 atanh cbrt ceil comb copysign cos cosh degrees dist e erf erfc
    exp exp2 expm1 fabs floor fmod frexp fsum gamma gcd hypot inf isclose isfinite isinf isnan
    isqrt lcm ldexp lgamma log log10 log1p log2 modf nan nextafter pi pow prod radians remainder
    sin sinh sqrt tan tanh tau trunc ulp
    """
)

# Module -> its usable names. Modules that are themselves listed may be reached from their parent.
ALLOWED: Mapping[str, frozenset[str]] = {
    "__future__": frozenset({"annotations"}),
    "collections": frozenset({"Counter", "OrderedDict", "defaultdict", "deque"}),
    "collections.abc": _names(
        "Callable Collection Hashable Iterable Iterator Generator Mapping MutableMapping "
        "MutableSequence Sequence Set Sized"
    ),
    "dataclasses": frozenset({"asdict", "dataclass", "field", "fields", "replace"}),
    "enum": frozenset({"Enum", "IntEnum", "StrEnum", "auto"}),
    "functools": frozenset({"cache", "lru_cache", "partial", "reduce", "wraps"}),
    "itertools": _names(
        "accumulate chain combinations groupby islice pairwise permutations product starmap "
        "takewhile zip_longest"
    ),
    "math": _MATH,
    "statistics": _names(
        "fmean geometric_mean harmonic_mean mean median pstdev pvariance stdev variance"
    ),
    "nanochat": frozenset(),
    "nanochat.contract": _names("Bounds Choice Horizon Knobs ParamInfo Role Scale TrainingState"),
    "torch": _TORCH,
    "torch.linalg": _LINALG,
    "torch.nn": frozenset(),
    "torch.nn.functional": _FUNCTIONAL,
    "torch.optim": frozenset({"Optimizer"}),
    "torch.special": frozenset({"entr", "erf", "erfc", "expit", "expm1", "log1p", "xlogy"}),
    "typing": _names(
        "Any Callable ClassVar Collection DefaultDict Deque Dict Final FrozenSet Generator Generic "
        "Iterable Iterator List Literal Mapping MutableMapping NamedTuple Optional ParamSpec "
        "Protocol Self Sequence Set Tuple Type TypeAlias TypedDict TypeVar Union cast overload"
    ),
}

BUILTINS = _names(
    """
    ArithmeticError AssertionError AttributeError Ellipsis Exception False FloatingPointError
    IndexError KeyError LookupError None NotImplemented NotImplementedError OverflowError
    RuntimeError StopIteration True TypeError ValueError ZeroDivisionError abs all any bool callable
    classmethod complex dict divmod enumerate filter float frozenset getattr hasattr id int
    isinstance issubclass iter len list map max min next object pow property range repr reversed
    round set slice sorted staticmethod str sum super tuple type zip
    """
)


# Refused even where the program binds them, so that a local name cannot cover for the built-in.
DENIED_NAMES = _names(
    "eval exec compile open globals locals vars setattr delattr input print breakpoint"
)

_FRAMES = _names(
    "gi_frame gi_code cr_frame cr_code ag_frame tb_frame tb_next f_back f_globals f_locals "
    "f_builtins f_code co_code func_globals"
)
_MEMORY = _names(
    "data_ptr untyped_storage storage set_ resize_ resize_as_ share_memory_ numpy tofile "
    "as_subclass as_strided as_strided_ from_file apply_ map_ _cdata _make_subclass"
)
_GRADIENTS = _names(
    "backward register_hook register_post_accumulate_grad_hook register_step_pre_hook "
    "register_step_post_hook requires_grad_"
)

# Attribute -> why not, worded to follow the attribute's name.
DENIED_ATTRIBUTES: Mapping[str, str] = {
    **dict.fromkeys(
        ("format", "format_map"), "can look up attributes from inside a string; use an f-string"
    ),
    **dict.fromkeys(_FRAMES, "leads to the interpreter's frames; do without"),
    **dict.fromkeys(_MEMORY, "reaches into a tensor's memory; use tensor operations"),
    **dict.fromkeys(
        _GRADIENTS, "changes how gradients are made; an optimizer only reads gradients"
    ),
    **dict.fromkeys(
        ("save", "load", "compile", "system", "popen", "environ", "modules", "mro"),
        "is nothing an optimizer needs; leave it out",
    ),
}


# What to do without a module that authors of optimizers often reach for.
_INSTEAD: Mapping[str, str] = {
    "copy": "use clone() on tensors, dict(x) and list(x) on the rest",
    "logging": "an optimizer does not report anything",
    "numpy": "use torch",
    "random": "use torch.randn_like, torch.rand or a torch.Generator",
    "time": "an optimizer has no clock; follow the step of the training state",
    "warnings": "an optimizer does not report anything; raise, or leave it out",
}


def why_not_imported(module: str) -> str:
    """Say why a module that is not in `ALLOWED` may not be imported, and what to do."""
    usable = ", ".join(sorted(name for name in ALLOWED if ALLOWED[name]))
    instead = _INSTEAD.get(module.partition(".")[0])
    advice = f"{instead}; " if instead else ""
    return f"{module} may not be imported; {advice}imports may only be of {usable}"


def why_not_allowed(dotted: str) -> str | None:
    """Say why the imported thing `dotted`, such as "torch.nn.functional.pad", may not be used.

    What follows the first name that a module lends out is not looked at.

    Returns:
        The reason, None where there is none.
    """
    module, *names = dotted.split(".")
    for name in names:
        if f"{module}.{name}" in ALLOWED:
            module = f"{module}.{name}"
        elif name in ALLOWED.get(module, ()) or _is_torch_variant(module, name):
            return None
        else:
            return f"{module}.{name} is not among the names of {module} an optimizer may use"
    return f"the module {module} may not be passed around or renamed; use {module}.<name>"


def _is_torch_variant(module: str, name: str) -> bool:
    """Return whether `name` is the in-place or many-tensor form of a listed torch function."""
    base = name.removeprefix("_foreach_").removesuffix("_")
    return module == "torch" and (base in _TORCH or base in {"copy", "zero"})
