"""Weight names: every name of both worlds translates, both ways, and nothing unknown passes."""

from __future__ import annotations

import pytest
import torch
from diffusers import AutoencoderKLWan, WanTransformer3DModel

from teleworld.models.naming import convert, detect_family, detect_naming, name_map
from teleworld.models.stream_vae import WAN21_VAE, WAN22_VAE, WanStreamVAE, WanVAEConfig
from teleworld.world.errors import CheckpointError


def dit_names(*, picture: bool) -> list[str]:
    with torch.device("meta"):
        model = WanTransformer3DModel(
            num_attention_heads=2,
            attention_head_dim=12,
            num_layers=11,
            ffn_dim=32,
            image_dim=8 if picture else None,
            added_kv_proj_dim=24 if picture else None,
            cross_attn_norm=True,
        )
    return list(model.state_dict())


def vae_names() -> list[str]:
    with torch.device("meta"):
        return list(AutoencoderKLWan().state_dict())


def vae22_names() -> list[str]:
    with torch.device("meta"):
        return list(public_vae22().state_dict())


def public_vae22() -> AutoencoderKLWan:
    return AutoencoderKLWan(
        base_dim=160,
        decoder_base_dim=256,
        z_dim=48,
        is_residual=True,
        in_channels=12,
        out_channels=12,
        patch_size=2,
        scale_factor_spatial=16,
        latents_mean=list(WAN22_VAE.latent_mean),
        latents_std=list(WAN22_VAE.latent_std),
    )


@pytest.mark.parametrize(
    ("names", "family"),
    [
        (dit_names(picture=False), "dit"),
        (dit_names(picture=True), "dit"),
        (vae_names(), "vae"),
        (vae22_names(), "vae"),
    ],
    ids=["text-to-video", "image-to-video", "vae", "vae 2.2"],
)
def test_every_public_name_goes_there_and_back(names: list[str], family: str):
    assert (detect_family(names), detect_naming(names)) == (family, "diffusers")
    to_wan = name_map(names, "wan")
    assert len(set(to_wan.values())) == len(names)
    assert detect_naming(to_wan.values()) == "wan"
    back = name_map(list(to_wan.values()), "diffusers")
    assert {back[wan]: wan for wan in back} == to_wan


@pytest.mark.parametrize(
    ("config", "build"), [(WAN21_VAE, AutoencoderKLWan), (WAN22_VAE, public_vae22)], ids=["2.1", "2.2"]
)
def test_the_vae_module_has_the_public_names(config: WanVAEConfig, build):
    with torch.device("meta"):
        vae, public = WanStreamVAE(config), build()
    converted = convert(public.state_dict(), "wan")
    own = vae.state_dict()
    assert {name: tensor.shape for name, tensor in own.items()} == {n: t.shape for n, t in converted.items()}


@pytest.mark.parametrize(
    ("diffusers", "wan"),
    [
        ("blocks.10.norm2.weight", "blocks.10.norm3.weight"),
        ("blocks.0.attn1.to_out.0.bias", "blocks.0.self_attn.o.bias"),
        ("blocks.0.attn2.add_k_proj.weight", "blocks.0.cross_attn.k_img.weight"),
        ("blocks.0.attn2.norm_added_k.weight", "blocks.0.cross_attn.norm_k_img.weight"),
        ("blocks.0.ffn.net.0.proj.weight", "blocks.0.ffn.0.weight"),
        ("blocks.0.scale_shift_table", "blocks.0.modulation"),
        ("scale_shift_table", "head.modulation"),
        ("proj_out.weight", "head.head.weight"),
        ("condition_embedder.time_proj.weight", "time_projection.1.weight"),
        ("condition_embedder.image_embedder.ff.net.2.weight", "img_emb.proj.3.weight"),
        ("patch_embedding.weight", "patch_embedding.weight"),
    ],
)
def test_transformer_names(diffusers: str, wan: str):
    assert name_map(dit_names(picture=True), "wan")[diffusers] == wan


@pytest.mark.parametrize(
    ("diffusers", "wan"),
    [
        ("quant_conv.weight", "conv1.weight"),
        ("encoder.down_blocks.5.time_conv.bias", "encoder.downsamples.5.time_conv.bias"),
        ("encoder.down_blocks.3.conv_shortcut.weight", "encoder.downsamples.3.shortcut.weight"),
        ("encoder.mid_block.attentions.0.to_qkv.weight", "encoder.middle.1.to_qkv.weight"),
        ("decoder.mid_block.resnets.1.norm2.gamma", "decoder.middle.2.residual.3.gamma"),
        ("decoder.up_blocks.0.upsamplers.0.time_conv.weight", "decoder.upsamples.3.time_conv.weight"),
        ("decoder.up_blocks.1.resnets.0.conv1.weight", "decoder.upsamples.4.residual.2.weight"),
        ("decoder.up_blocks.3.resnets.2.conv2.weight", "decoder.upsamples.14.residual.6.weight"),
        ("decoder.norm_out.gamma", "decoder.head.0.gamma"),
    ],
)
def test_vae_names(diffusers: str, wan: str):
    assert name_map(vae_names(), "wan")[diffusers] == wan


@pytest.mark.parametrize(
    ("diffusers", "wan"),
    [
        ("encoder.down_blocks.1.resnets.0.conv_shortcut.weight", "encoder.downsamples.1.downsamples.0.shortcut.weight"),
        ("encoder.down_blocks.2.downsampler.time_conv.weight", "encoder.downsamples.2.downsamples.2.time_conv.weight"),
        ("decoder.up_blocks.0.upsampler.resample.1.weight", "decoder.upsamples.0.upsamples.3.resample.1.weight"),
        ("decoder.up_blocks.3.resnets.2.conv2.bias", "decoder.upsamples.3.upsamples.2.residual.6.bias"),
        ("decoder.mid_block.attentions.0.proj.weight", "decoder.middle.1.proj.weight"),
    ],
)
def test_vae22_names(diffusers: str, wan: str):
    assert name_map(vae22_names(), "wan")[diffusers] == wan


def test_the_same_naming_is_left_alone():
    names = vae_names()
    assert name_map(names, "diffusers") == {name: name for name in names}


def test_an_unknown_name_is_an_error_that_names_it():
    with pytest.raises(CheckpointError, match=r"unknown diffusers names: blocks\.0\.attn1\.to_z\.weight"):
        name_map([*dit_names(picture=False), "blocks.0.attn1.to_z.weight"], "wan")


def test_names_of_neither_or_both_are_refused():
    with pytest.raises(CheckpointError, match=r"neither a Wan2\.1 transformer nor its VAE"):
        detect_family(["layers.0.weight"])
    with pytest.raises(CheckpointError, match="not clearly"):
        detect_naming([*vae_names(), "conv1.weight"])
