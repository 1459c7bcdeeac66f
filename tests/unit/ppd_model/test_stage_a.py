"""Stage A's two decoders: the published one, and one of full convolutions on the same encoder."""

import torch
from diffusers.pipelines.deprecated.wuerstchen.modeling_paella_vq_model import PaellaVQModel

from ppd_model.nets.stage_a import FullConvVQModel, _enlarged, build_stage_a
from ppd_model.presets import get_preset

PAELLA = dict(embed_dim=16, num_vq_embeddings=32, bottleneck_blocks=1, scale_factor=1.0)


def full_conv() -> FullConvVQModel:
    return FullConvVQModel(decoder_channels=(16, 8, 4), decoder_blocks=(1, 1), **PAELLA)


def test_published_presets_keep_the_published_decoder() -> None:
    with torch.device("meta"):
        for name in ("stable-cascade", "stable-cascade-1b"):
            assert type(build_stage_a(get_preset(name))) is PaellaVQModel


def test_the_encoder_and_its_book_are_paellas() -> None:
    torch.manual_seed(0)
    paella, ours = PaellaVQModel(**PAELLA).eval(), full_conv().eval()
    missing, unknown = ours.load_state_dict(
        {
            key: weight
            for key, weight in paella.state_dict().items()
            if not key.startswith(("up_blocks", "out_block"))
        },
        strict=False,
    )
    assert not unknown
    assert all(key.startswith(("up_blocks", "out_block")) for key in missing)
    image = torch.rand(1, 3, 32, 32)
    assert torch.equal(ours.encode(image).latents, paella.encode(image).latents)
    assert ours(image).sample.shape == image.shape


def test_an_enlargement_starts_as_plain_repetition() -> None:
    torch.manual_seed(0)
    made = torch.nn.Sequential(*_enlarged(3, 5))(torch.randn(1, 3, 4, 4))
    assert made.shape == (1, 5, 8, 8)
    corners = made[:, :, ::2, ::2]
    for row, column in ((0, 1), (1, 0), (1, 1)):
        assert torch.allclose(made[:, :, row::2, column::2], corners, atol=1e-6)


def test_every_pixel_sees_its_neighbours_in_other_cells() -> None:
    torch.manual_seed(0)
    model = full_conv()
    latent = torch.randn(1, 4, 4, 4)
    other = latent.clone()
    other[..., 2, 2] += 1
    changed = (model.decode(other).sample != model.decode(latent).sample)[0].any(0)
    assert changed[7:13, 7:13].all()
