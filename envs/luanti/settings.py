"""The engine's settings for one episode."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from oneiros.envs.minecraft.actions import TURN_DEGREES

VERTICAL_VIEW = 70.0
"""Degrees that the picture shows from top to bottom, as in the protocol's game."""
TURN_PIXELS = 8
"""How far the pointer moves for one turn; a pointer cannot leave the window, which is at least four times as wide."""


@dataclass(frozen=True)
class World:
    """What a world and its look are made from."""

    height: int = 64
    width: int = 64
    break_speed: float = 100.0
    view: int = 24
    oracle: bool = False


FIXED: Mapping[str, object] = {
    # The shim's rules: the frame rate never limits, the server's own pace is that of the frames.
    "fps_max": 1000,
    "fps_max_unfocused": 1000,
    "dedicated_server_step": 0.001,
    "num_emerge_threads": 1,
    "max_packets_per_iteration": 65535,
    "pause_on_lost_focus": False,
    "enable_ipv6": False,
    "ipv6_server": False,
    "bind_address": "127.0.0.1",
    "autosave_screensize": False,
    "secure.trusted_mods": "oneiros",
    "enable_client_modding": False,
    "enable_mod_channels": False,
    "enable_remote_media_server": False,
    "send_pre_v25_init": False,
    "update_last_checked": "disabled",
    "update_information_url": "",
    # How it looks.
    "video_driver": "opengl",
    "fullscreen": False,
    "vsync": False,
    "enable_sound": False,
    "enable_shaders": False,
    "enable_vbo": False,  # native/culling.c looks at what is drawn
    "enable_clouds": False,
    "enable_3d_clouds": False,
    "enable_particles": False,
    "enable_minimap": False,
    "enable_dynamic_shadows": False,
    "enable_fog": True,
    "smooth_lighting": False,
    "mip_map": True,
    "leaves_style": "opaque",
    "opaque_water": False,
    "connected_glass": False,
    "node_highlighting": "none",
    "show_entity_selectionbox": False,
    "hud_scaling": 1,
    "console_height": 0.1,
    "show_statusline_on_connect": False,
    "chat_log_level": "none",
    "tooltip_show_delay": 100000,
    "view_bobbing_amount": 0,
    "fall_bobbing_amount": 0,
    "arm_inertia": False,
    "cam_smoothing": 0,
    "crosshair_alpha": 160,
    "desynchronize_mapblock_texture_animation": False,
    # Caves are dark, not black.
    "lighting_boost": 0.22,
    "lighting_boost_center": 0.0,
    "lighting_boost_spread": 0.25,
    # How it plays.
    "name": "agent",
    "keymap_sneak": "KEY_LSHIFT",
    "autojump": False,
    "always_fly_fast": False,
    "creative_mode": False,
    "enable_damage": True,
    "enable_fire": False,
    "time_speed": 72,
    "default_privs": "interact",
    "safe_dig_and_place": False,
    # How much of the world there is at a time.
    "mg_name": "v7",
    "mg_flags": "caves,nodungeons,light,decorations,biomes,ores",
    "water_level": 1,
    "active_block_range": 2,
    "active_object_send_range_blocks": 2,
    "full_block_send_enable_min_time_from_building": 0,
    "server_unload_unused_data_timeout": 60,
    "client_unload_unused_data_timeout": 60,
    "client_mapblock_limit": 4000,
    "server_map_save_interval": 1000000,
    "liquid_update": 1.0,
}


def configuration(world: World, seed: int) -> str:
    """The text of ``minetest.conf`` for a world with this map seed."""
    # The engine widens its own field of view for windows narrower than 16:10.
    widening = min(max(math.sqrt(1.6 * world.height / world.width), 1.0), 1.4)
    # As far as fog lets one see: each further layer is half as much again to generate, send and mesh.
    blocks = world.view // 16 + 1
    per_pixel = math.tan(math.radians(VERTICAL_VIEW) / 2) * 1.3763818698
    chosen = {
        "screen_w": world.width,
        "screen_h": world.height,
        "fov": VERTICAL_VIEW / widening,
        "mouse_sensitivity": TURN_DEGREES / TURN_PIXELS / per_pixel,
        "viewing_range": world.view,
        "max_block_send_distance": blocks,
        "max_block_generate_distance": blocks,
        "block_send_optimize_distance": blocks,
        "fixed_map_seed": seed,
        "oneiros_break_speed": world.break_speed,
        "oneiros_oracle": world.oracle,
    }
    return "".join(f"{name} = {_text(value)}\n" for name, value in {**FIXED, **chosen}.items())


WORLD_FILE = """gameid = {game}
backend = dummy
player_backend = dummy
auth_backend = files
mod_storage_backend = dummy
creative_mode = false
enable_damage = true
"""


def _text(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)
