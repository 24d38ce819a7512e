"""Videos -> shards: plan, sandboxed transcoding, merge; audit before and verification after."""
