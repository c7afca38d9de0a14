"""Start the planner: `python -m services.planner`."""

from __future__ import annotations

from dataclasses import replace

from services.common import sizes
from services.common.loading import open_model
from services.common.ranks import Call, Calls, serve
from services.planner.servicer import PlannerCore, register
from services.planner.settings import PlannerSettings
from teleworld._proto.planner.v1 import planner_pb2 as pb
from teleworld.rpc.convert import planner as convert
from teleworld.rpc.convert.common import ModelDescription

CALLS: Calls = {
    "embed": Call(pb.EmbedRequest, convert.write_embed_request, convert.read_embed_request),
    "encode": Call(pb.EncodeRequest, convert.write_encode_request, convert.read_encode_request),
    "plan": Call(pb.PlanRequest, convert.write_plan_request, convert.read_plan_request),
    "plan_many": Call(pb.PlanManyRequest, convert.write_plan_many_request, convert.read_plan_many_request),
    "bridge": Call(pb.BridgeRequest, convert.write_bridge_request, convert.read_bridge_request),
}


def load(settings: PlannerSettings) -> tuple[ModelDescription, PlannerCore]:
    """The core with its weights. Imported here, so that the process listens before torch is loaded."""
    from services.common.batching import planner_batches
    from services.common.rehearsal import rehearse_planner
    from teleworld.generation.planner import Planner
    from teleworld.memory.embeddings import LocalEmbeddingCache
    from teleworld.memory.redis_embeddings import RedisEmbeddingCache

    description, model = open_model(settings, "dit", "sampling", "vae", "text")
    own = LocalEmbeddingCache()  # stays empty where planners share one
    sizes.caches.track(own, lambda kept: {"text": kept.nbytes})
    core = Planner(model, RedisEmbeddingCache.from_url(settings.redis_url) if settings.redis_url else own)
    rehearse_planner(core)
    return replace(description, batches=planner_batches(core, settings.batch)), core


if __name__ == "__main__":
    raise SystemExit(serve("planner", PlannerSettings, load, register, CALLS))
