"""The small Stream-VAE: any chunking gives the same, and guidance can only add what it shows."""

import pytest
import torch

from teleworld.models.stream_vae.base import DecoderGuidance, StreamVAE
from teleworld.models.stream_vae.patch import PatchVAE, PatchVAEConfig
from teleworld.models.stream_vae.state import StreamState
from teleworld.world.errors import InvalidInput


@pytest.fixture(scope="module")
def vae():
    torch.manual_seed(0)
    vae = PatchVAE(PatchVAEConfig(channels=12, widths=(12, 8, 8), depths=(1, 1, 2)))
    vae.basis.copy_(torch.linalg.qr(torch.randn(768, 12))[0].T)
    for parameter in vae.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    return vae.eval().requires_grad_(False)


@pytest.fixture(scope="module")
def video():
    return torch.rand(1, 3, 17, 32, 48, generator=torch.Generator().manual_seed(1)) * 2 - 1


@pytest.mark.parametrize("chunks", [(1, 4, 4, 4, 4), (1, 8, 8), (1, 16)])
def test_encoding_does_not_depend_on_the_chunking(vae, video, chunks):
    state = vae.new_encoder_state()
    parts = [vae.encode_chunk(part, state) for part in video.split(chunks, dim=2)]
    assert torch.equal(torch.cat(parts, dim=2), vae.encode(video))


@pytest.mark.parametrize("chunks", [(1, 1, 1, 1, 1), (2, 3), (1, 4), (5,)])
def test_decoding_does_not_depend_on_the_chunking(vae, video, chunks):
    latents = vae.encode(video)
    hint = DecoderGuidance(video.flip(-1), (torch.rand(1, 1, 17, 32, 48) > 0.5).float())
    state, shown, parts = vae.new_decoder_state(), 0, []
    for part in latents.split(chunks, dim=2):
        frames = vae.pixel_frames(part.shape[2], first=state.fresh)
        parts.append(vae.decode_chunk(part, state, hint.between(shown, shown + frames)))
        shown += frames
        state = StreamState.from_bytes(state.to_bytes())
    assert torch.equal(torch.cat(parts, dim=2), vae.decode(latents, hint))


def test_the_past_matters_and_the_future_does_not(vae, video):
    latents = vae.encode(video)
    whole = vae.decode(latents)
    other = latents.clone()
    other[:, :, 3] += 1
    changed = vae.decode(other)
    assert torch.equal(whole[:, :, :9], changed[:, :, :9]), "causal: frames before latent 3 are as they were"
    assert not torch.equal(whole[:, :, 13:], changed[:, :, 13:]), "the memory carries latent 3 into latent 4"


def test_holes_in_the_guidance_show_nothing(vae, video):
    latents = vae.encode(video[:, :, :5])
    mask = torch.zeros(1, 1, 5, 32, 48)
    hints = [DecoderGuidance(torch.full((1, 3, 5, 32, 48), value), mask) for value in (-1.0, 1.0)]
    first, second = (vae.decode(latents, hint) for hint in hints)
    assert torch.equal(first, second)


def test_the_linear_codec_is_a_projection(vae, video):
    frames = video[:, :, 1:]
    once = vae.unproject(vae.project(frames))
    assert torch.allclose(vae.unproject(vae.project(once)), once, atol=1e-5)


def test_guidance_of_another_length_is_refused(vae, video):
    with pytest.raises(InvalidInput, match=r"guidance\.pixels"):
        vae.decode(vae.encode(video[:, :, :5]), DecoderGuidance(video[:, :, :4], video[:, :1, :4]))


def test_doubled_keys_are_the_last_frames_of_the_whole_sequences(vae, video):
    latents = vae.encode(video)
    prefix, keys = latents[:, :, :1], latents[:, :, 1:4].transpose(0, 2)
    hint = DecoderGuidance(torch.rand(3, 3, 4, 32, 48) * 2 - 1, (torch.rand(3, 1, 4, 32, 48) > 0.3).float())
    quick = vae.decode_doubled(prefix, keys, hint)
    for row, key in enumerate(keys):
        twice = DecoderGuidance(*(part[row : row + 1].repeat(1, 1, 2, 1, 1) for part in (hint.pixels, hint.mask)))
        first = DecoderGuidance(torch.zeros(1, 3, 1, 32, 48), torch.zeros(1, 1, 1, 32, 48))
        whole = DecoderGuidance(torch.cat([first.pixels, twice.pixels], 2), torch.cat([first.mask, twice.mask], 2))
        sequence = torch.cat([prefix, key[None], key[None]], dim=2)
        assert torch.allclose(quick[row], vae.decode(sequence, whole)[0, :, -1:], atol=1e-4)
    assert torch.allclose(quick, StreamVAE.decode_doubled(vae, prefix, keys, hint), atol=1e-4)


def test_doubled_keys_of_the_wrong_shape_are_refused(vae, video):
    latents = vae.encode(video)
    with pytest.raises(InvalidInput, match="keys"):
        vae.decode_doubled(latents[:, :, :1], latents[:, :4, 1:2], DecoderGuidance(video[:, :, 1:5], video[:, :1, 1:5]))
