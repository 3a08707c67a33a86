-- The game's half of the environment. The player moves, looks and digs through the client; what has no key there
-- (crafting, smelting, placing, taking a tool in hand) is done here, by the engine's own recipes and placing.
oneiros = {}

local folder = minetest.get_modpath("oneiros")
local insecure = assert(minetest.request_insecure_environment(), "oneiros must be among secure.trusted_mods")
oneiros.memory = dofile(folder .. "/memory.lua")(insecure)
for _, part in ipairs({"world", "hunger", "inventory", "actions", "start", "oracle", "observation"}) do
	dofile(folder .. "/" .. part .. ".lua")
end
