"""render_parts: images of a template's parts against their definition, and the operator as a citizen of torch."""

import hashlib
import importlib
import math
import os
import subprocess
import sys
from pathlib import Path

import memory
import numpy as np
import part_checks
import pytest
import torch
from backends import CPP, TORCH
from hypothesis import given, settings
from hypothesis import strategies as st
from reference import parts as reference

import structloss
from structloss import shape_templates
from structloss.errors import ArgumentError, BackendError
from structloss.ops.parts import kept_memory, library

# The backends that run on the CPU as they are; those of a GPU, emulated or interpreted, have files of their own.
per_backend = pytest.mark.parametrize("backend", [TORCH, CPP])
GOLDEN = Path(__file__).parent / "golden" / "images" / "shape_template.npz"
CUT = 8e-7  # exp(-5.3^2 / 2): what float32 leaves out


@pytest.fixture
def kernels(backend):
    return importlib.import_module(f"structloss.ops.parts.{backend}_impl")


def template_of(name="natural", size=256, dtype=torch.float64):
    return torch.tensor(shape_templates.get(name).at(size).parameters, dtype=dtype)


def moved(*leading, size=64, spread=0.3, dtype=torch.float32, template=None):
    """Matrices [*leading, P, 2, 3] that turn and stretch each part about its centre, and shift it a little."""
    template = template_of(size=size) if template is None else template.double()
    linear = torch.eye(2).double() + spread * torch.randn(*leading, len(template), 2, 2).double()
    centre = template[:, [1, 0], None]
    shift = centre - linear @ centre + 0.05 * size * torch.randn(*leading, len(template), 2, 1).double()
    return torch.cat([linear, shift], -1).to(dtype)


# ---- values and gradients ----------------------------------------------------------------------------------------


@per_backend
@pytest.mark.parametrize("size", part_checks.SIZES)
def test_images_and_gradients_are_the_definition(size, kernels):
    for dtype in (torch.float32, torch.float64):
        part_checks.check(kernels, size, dtype, images=2, count=3)


@per_backend
def test_special_matrices(kernels):
    for dtype in (torch.float32, torch.float64):
        part_checks.check_special_matrices(kernels, dtype)


@per_backend
def test_what_the_gradient_reads(kernels):
    part_checks.check_strides(kernels)
    part_checks.check_gradients_beyond_a_part_do_not_count(kernels)


@per_backend
def test_the_same_bits_whatever_other_parts_there_are(kernels):
    for dtype in (torch.float32, torch.float64):
        part_checks.check_bits(kernels, dtype, images=2)


@per_backend
@pytest.mark.parametrize("name", shape_templates.names())
def test_golden_figures(name, backend):
    """Drawn parts to the last digit; warped ones to what the published code's sampling interpolates and cuts off."""
    golden = np.load(GOLDEN)

    def pooled(images):
        return torch.nn.functional.avg_pool2d(images, 16)

    still = structloss.render_parts(torch.eye(2, 3).double().expand(18, 2, 3), name, backend=backend)
    np.testing.assert_allclose(pooled(still), golden[f"draw__{name}_pooled"], rtol=0, atol=1e-12)
    np.testing.assert_allclose(still.sum((1, 2)), golden[f"draw__{name}_sum"], rtol=1e-12)
    matrices = torch.from_numpy(golden["warp__affine"]) * torch.tensor([1.0, 1.0, 256.0]).double()
    for dtype in (torch.float64, torch.float32):
        images = structloss.render_parts(matrices.to(dtype), name, backend=backend).double()
        sampled = reference.sample_parts(matrices, template_of(name), 256)
        inside = reference.render_parts(matrices[None], template_of(name), 256)[0]
        assert (images - inside).abs().max() < (2e-6 if dtype == torch.float32 else 1e-12)
        np.testing.assert_allclose(pooled(sampled), golden[f"warp__{name}_pooled"], rtol=0, atol=1e-7)
        # The specification says 0.008 at a pixel, which is 0.0084 rounded, and 1e-5 on average.
        assert (images - sampled).abs().max() < 0.0085 and (images - sampled).abs().mean() < 2e-5
        np.testing.assert_allclose(pooled(images), golden[f"warp__{name}_pooled"], rtol=0, atol=0.008)


@per_backend
def test_gradcheck(backend):
    template = torch.tensor([[5.0, 6.0, 1.5, 2.5, 0.4, 1.0], [7.0, 3.0, 2.0, 1.0, -1.2, 0.7]]).double()
    matrices = moved(2, size=12, dtype=torch.float64, template=template).requires_grad_()

    def function(x):
        return structloss.render_parts(x, template, 12, backend=backend)

    assert torch.autograd.gradcheck(function, (matrices,), eps=1e-6, atol=1e-7, rtol=1e-5)


numbers = st.one_of(
    st.sampled_from([0.0, -0.0, 1.0, -1.0, 1e-30, 1e30, -1e-3, 1e4, 3e38, 1e-45, math.nan, math.inf, -math.inf]),
    st.floats(-2, 2, width=32),
    st.floats(width=32),
)


@per_backend
@settings(max_examples=60)
@given(st.lists(numbers, min_size=6, max_size=6), st.sampled_from([1, 7, 16, 17, 40]))
def test_any_matrix(backend, matrix, size):
    """Within bounds, NaN for all of a part or for none of it, and the definition where float32 can tell."""
    template = torch.tensor([[8.0, 9.0, 2.0, 3.0, 0.5, 1.0], [8.0, 9.0, 2.0, 3.0, 0.5, 1.0]])
    matrices = torch.stack([torch.tensor(matrix).view(2, 3), torch.eye(2, 3)]).requires_grad_()
    images = structloss.render_parts(matrices, template, size, backend=backend)
    (gradient,) = torch.autograd.grad(images.sum(), matrices)
    still = structloss.render_parts(torch.eye(2, 3)[None], template[:1], size, backend=backend)
    assert torch.equal(images[1], still[0]), "the part beside it"
    image, own = images[0].detach(), matrices[0].detach()
    if not own.isfinite().all():
        assert image.isnan().all() and gradient[0].isnan().all()
        return
    assert ((image >= 0) & (image <= 1)).all() and not gradient[0].isnan().any()
    linear = own[:, :2].double()
    if torch.linalg.det(linear) == 0:
        assert not image.any() and not gradient[0].any()
    elif torch.linalg.cond(linear) < 1e4 and own.abs().max() < 1e4 and linear.abs().max() > 1e-3:
        expected = reference.render_part(own.double(), template[0].double(), size)
        torch.testing.assert_close(image.double(), expected, rtol=0, atol=CUT + 1e-4)


@per_backend
def test_mirrored_parts_and_two_steps(backend):
    matrices = moved(2, dtype=torch.float64)
    images = structloss.render_parts(matrices, size=64, backend=backend)
    mirror = torch.tensor([[-1.0, 0.0, 63.0], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0]]).double()
    last = torch.tensor([0.0, 0.0, 1.0]).double().expand(2, 18, 1, 3)
    composed = (mirror @ torch.cat([matrices, last], -2))[..., :2, :]
    found = structloss.render_parts(composed, size=64, backend=backend)
    torch.testing.assert_close(found, images.flip(-1), rtol=0, atol=1e-13)


@per_backend
def test_a_named_template_grows_with_the_image(backend):
    identity = torch.eye(2, 3).double().expand(18, 2, 3)
    large = structloss.render_parts(identity, "original", backend=backend)
    small = structloss.render_parts(identity, "original", 64, backend=backend)
    torch.testing.assert_close(small, large[:, ::4, ::4], rtol=0, atol=1e-13)
    same = structloss.render_parts(identity, template_of("original", 64), 64, backend=backend)
    assert torch.equal(small, same)


# ---- shapes, dtypes, layouts -------------------------------------------------------------------------------------


@per_backend
def test_leading_dimensions_and_no_parts(backend):
    matrices = moved(2, 3)
    images = structloss.render_parts(matrices, size=64, backend=backend)
    assert images.shape == (2, 3, 18, 64, 64)
    assert torch.equal(structloss.render_parts(matrices[1, 2], size=64, backend=backend), images[1, 2])
    for shape, template in (((0, 18), "natural"), ((4, 0), torch.zeros(0, 6)), ((0,), torch.zeros(0, 6))):
        leaf = torch.zeros(*shape, 2, 3, requires_grad=True)
        images = structloss.render_parts(leaf, template, 8, backend=backend)
        images.sum().backward()
        assert images.shape == (*shape, 8, 8) and leaf.grad.shape == leaf.shape


@per_backend
def test_strides(backend):
    """Matrices that are not contiguous, and incoming gradients of any layout."""
    plain = moved(3)
    turned = plain.permute(3, 1, 0, 2).contiguous().permute(2, 1, 3, 0)
    assert not turned.is_contiguous()
    weights = torch.randn(3, 18, 64, 64)
    results = []
    for matrices in (plain, turned):
        leaf = matrices.detach().requires_grad_()
        images = structloss.render_parts(leaf, size=64, backend=backend)
        for loss in ((images * weights).sum(), images.transpose(-1, -2).mul(weights).sum(), images[..., ::2].mean()):
            results.append((loss, torch.autograd.grad(loss, leaf, retain_graph=True)[0]))
    for (a, b), (c, d) in zip(results[:3], results[3:], strict=True):
        assert torch.equal(a, c) and torch.equal(b, d)
    assert all(gradient.any() for _, gradient in results)


@per_backend
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_types_are_computed_in_float32(dtype, backend):
    matrices = moved(2, dtype=dtype).requires_grad_()
    wide = matrices.detach().float().requires_grad_()
    images, expected = (structloss.render_parts(x, size=64, backend=backend) for x in (matrices, wide))
    assert images.dtype == torch.float32 and torch.equal(images, expected)
    weights = torch.randn_like(images)
    found, exact = (torch.autograd.grad((y * weights).sum(), x)[0] for x, y in ((matrices, images), (wide, expected)))
    assert found.dtype == dtype and torch.equal(found, exact.to(dtype))


@per_backend
@pytest.mark.parametrize(
    "context", [torch.no_grad, torch.inference_mode, lambda: torch.autocast("cpu", torch.bfloat16)]
)
def test_contexts(context, backend):
    matrices = moved(1)
    expected = structloss.render_parts(matrices, size=64, backend=backend)
    with context():
        assert torch.equal(structloss.render_parts(matrices, size=64, backend=backend), expected)
    library._named.cache_clear()
    with torch.inference_mode():  # the template that is kept must serve training, too
        structloss.render_parts(matrices, size=64, backend=backend)
    leaf = matrices.clone().requires_grad_()
    structloss.render_parts(leaf, size=64, backend=backend).sum().backward()
    assert leaf.grad.any()


# ---- torch -------------------------------------------------------------------------------------------------------


@per_backend
@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_opcheck(dtype, backend):
    for parameters, name in ((None, "natural"), (template_of(size=16, dtype=dtype), "")):
        matrices = moved(2, size=16, dtype=dtype).requires_grad_()
        torch.library.opcheck(torch.ops.structloss.render_parts.default, (matrices, parameters, name, 16, backend))
        grad = torch.randn(2, 18, 16, 16, dtype=torch.float64 if dtype == torch.float64 else torch.float32)
        torch.library.opcheck(
            torch.ops.structloss.render_parts_backward.default,
            (grad, matrices.detach(), parameters, name, 16, backend),
        )


def loss(matrices, template, backend):
    images = structloss.render_parts(matrices, size=32, backend=backend)
    return (images**2).sum() + structloss.render_parts(matrices, template, 32, backend=backend).mean()


def both(functions, matrices, *rest):
    """The value of each function and its gradient."""
    for function in functions:
        leaf = matrices.clone().requires_grad_()
        value = function(leaf, *rest)
        value.backward()
        yield value.detach(), leaf.grad


@per_backend
def test_one_graph_that_no_batch_size_compiles_again(backend):
    torch._dynamo.reset()
    compiled = torch.compile(loss, fullgraph=True, dynamic=True, backend="aot_eager")
    template = template_of(size=32, dtype=torch.float32)
    try:
        for batch in (2, 3, 5, 8):
            matrices = moved(batch, size=32)
            for eager, graph in zip(*both((loss, compiled), matrices, template, backend), strict=True):
                torch.testing.assert_close(graph, eager, rtol=1e-6, atol=1e-7)
            if batch == 3:
                torch.compiler.set_stance("fail_on_recompile")
    finally:
        torch.compiler.set_stance("default")


@per_backend
def test_export(backend):
    class Module(torch.nn.Module):
        def forward(self, matrices):
            return structloss.render_parts(matrices, "original", 32, backend=backend)

    batch = torch.export.Dim("batch", min=2)
    program = torch.export.export(Module(), (moved(2, size=32),), dynamic_shapes=({0: batch},))
    operators = [str(node.target) for node in program.graph.nodes if node.op == "call_function"]
    assert operators.count("structloss.render_parts.default") == 1
    matrices = moved(3, size=32)
    assert torch.equal(program.module()(matrices), Module()(matrices))


def test_meta_tensors_have_a_shape():
    images = structloss.render_parts(torch.empty(5, 18, 2, 3, device="meta", dtype=torch.float16), size=32)
    assert images.shape == (5, 18, 32, 32) and images.is_meta and images.dtype == torch.float32


@per_backend
def test_negative_views(backend):
    matrices = moved(2)
    imaginary = torch.complex(torch.zeros_like(matrices), -matrices).conj().imag
    assert imaginary.is_neg()
    found = structloss.render_parts(imaginary, size=64, backend=backend)
    assert torch.equal(found, structloss.render_parts(matrices, size=64, backend=backend))


@per_backend
def test_differentiable_once(backend):
    matrices = moved(1, size=16).requires_grad_()
    images = structloss.render_parts(matrices, size=16, backend=backend)
    (gradient,) = torch.autograd.grad(images.square().sum(), matrices, create_graph=True)
    with pytest.raises(RuntimeError, match=r"differentiable once: its gradient was differentiated again"):
        gradient.sum().backward()
    with pytest.raises(ArgumentError, match=r"matrices is inside a transform of torch.func"):
        torch.func.grad(lambda x: structloss.render_parts(x, size=16, backend=backend).sum())(matrices.detach())


# ---- backends, threads, memory -----------------------------------------------------------------------------------


def test_who_serves():
    matrices = torch.eye(2, 3).expand(18, 2, 3)

    def served(backend=None):
        return library.serving(backend, matrices).__name__.rpartition(".")[2]

    fastest = "cpp_impl" if structloss.backends()["cpp"] else "torch_impl"
    assert served() == served("auto") == fastest
    with structloss.use_backend("torch"):
        assert served() == "torch_impl" and served("auto") == fastest
    with pytest.raises(BackendError, match=r"backend 'cuda' can't serve this call: "):
        if structloss.backends()["cuda"]:
            raise BackendError("backend 'cuda' can't serve this call: there is one")
        structloss.render_parts(matrices, size=8, backend="cuda")


def in_a_process(code, **environment):
    done = subprocess.run(
        [sys.executable, "-c", code],
        env=os.environ | environment,
        cwd=Path(__file__).parent,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def digest():
    """A hash of images and gradients in both dtypes."""
    torch.manual_seed(3)
    found = hashlib.sha256()
    for dtype in (torch.float32, torch.float64):
        matrices = moved(3, dtype=dtype).requires_grad_()
        images = structloss.render_parts(matrices, size=64, backend="cpp")
        images.backward(torch.randn_like(images))
        found.update(images.detach().numpy().tobytes() + matrices.grad.numpy().tobytes())
    return found.hexdigest()


@pytest.mark.parametrize("backend", [CPP])
def test_the_environment_and_instruction_sets(backend):
    """The same bits with every instruction set; STRUCTLOSS_BACKEND is the default; images that live to the end of a
    process, and memory that is kept, don't disturb it."""
    code = (
        "import sys; sys.path.insert(0, '.'); import test_render_parts as t; from structloss.ops.parts import library; "
        "print(library.serving(None, t.torch.zeros(1)).__name__, t.digest()); "
        "used, _ = (t.kept_memory.tensor((8, 10**6), t.torch.float32)[0] for _ in range(2)); del _"
    )
    for instructions in ("plain", "avx2"):
        found = in_a_process(code, STRUCTLOSS_INSTRUCTION_SET=instructions, STRUCTLOSS_BACKEND="torch")
        assert found.split() == ["structloss.ops.parts.torch_impl", digest()], instructions


@pytest.mark.parametrize("backend", [CPP])
def test_the_same_bits_for_any_number_of_threads(backend):
    found, matrices = set(), moved(3, size=256)
    threads = torch.get_num_threads()
    try:
        for count in (1, 2, 3):
            torch.set_num_threads(count)
            leaf = matrices.clone().requires_grad_()
            images = structloss.render_parts(leaf, backend=backend)
            images.backward(images.detach() - 0.25)
            bits = images.detach().numpy().tobytes() + leaf.grad.numpy().tobytes()
            found.add(hashlib.sha256(bits).hexdigest())
    finally:
        torch.set_num_threads(threads)
    assert len(found) == 1


@pytest.mark.parametrize("backend", [CPP])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_fresh_memory_and_old(dtype, backend, kernels, monkeypatch):
    """Where the system provides zeros, and where the kernel writes them, into the caches or past them: the same images,
    and nothing beside them."""
    matrices = moved(8, dtype=dtype)
    matrices[0, :2] = 0
    matrices[0, 2, 0, 0] = math.nan
    for batch, size in ((2, 64), (8, 250 if dtype == torch.float32 else 181)):
        template = template_of(size=size, dtype=dtype)
        shape = (batch, 18, size, size)
        images = []
        for fresh_from in (2**62, 0):  # conftest.py fills what isn't fresh with NaN before
            monkeypatch.setattr(kernels.kept_memory, "FROM_BYTES", fresh_from)
            kernels.kept_memory.give_back()
            images.append(kernels.forward(matrices[:batch], template, size))
        old, fresh = images
        assert fresh.data_ptr() % 64 == 0
        torch.testing.assert_close(fresh, old, rtol=0, atol=0, equal_nan=True)
        del images, fresh
        for first in (32, 33):  # lines of a cache begin elsewhere
            guarded = torch.full((first + old.numel() + 32,), -1.0, dtype=dtype)
            inside = guarded[first:-32]
            for zeros in (False, True):
                inside.fill_(0 if zeros else torch.nan)
                arguments = (matrices.data_ptr(), template.data_ptr(), inside.data_ptr(), zeros)
                kernels.native.cpu_module().render_parts(
                    str(dtype).removeprefix("torch."),
                    (batch, 18, size),
                    *arguments,
                    kernels.native.parallel_for_address(),
                    2,
                )
                torch.testing.assert_close(inside.view(shape), old, rtol=0, atol=0, equal_nan=True)
                assert (guarded[:first] == -1).all() and (guarded[-32:] == -1).all()


@pytest.mark.skipif(sys.platform != "linux", reason="memory is read from /proc")
@per_backend
def test_memory(backend):
    """Beside the images forward takes a megabyte per thread at most, and so does backward; PyTorch a few images."""
    matrices = moved(8, size=256).requires_grad_()  # 38 MB of images
    allowed = torch.get_num_threads() * 1e6 + (0 if backend == "cpp" else 8e6)
    kept_memory.give_back()  # else it would be found there
    kept = [structloss.render_parts(matrices[:1].detach(), backend=backend)]
    kept[0].new_ones(()).expand_as(kept[0])

    def forget():
        kept.pop()
        kept_memory.give_back()

    extra = memory.least_peak_of(lambda: kept.append(structloss.render_parts(matrices, backend=backend)), undo=forget)
    images = kept.pop()
    assert extra <= images.nbytes + allowed + 1e6, f"{extra / 1e6:.1f} MB"  # the measure is exact to 1 MB
    weights = torch.ones(()).expand_as(images)
    torch.autograd.grad(images, matrices, weights, retain_graph=True)
    extra = memory.least_peak_of(lambda: torch.autograd.grad(images, matrices, weights, retain_graph=True))
    assert extra <= allowed + 1e6, f"{extra / 1e6:.1f} MB"
    memory.give_back()
