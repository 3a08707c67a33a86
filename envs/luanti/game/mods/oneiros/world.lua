-- What differs from Minetest Game: a crafting table, ores within reach, how fast things break, nights one can see in.

minetest.register_node("oneiros:crafting_table", {
	description = "Crafting Table",
	tiles = {"default_chest_top.png^default_tool_woodpick.png", "default_wood.png", "default_chest_side.png"},
	groups = {choppy = 2, oddly_breakable_by_hand = 2},
	is_ground_content = false,
})
minetest.register_craft({
	output = "oneiros:crafting_table",
	recipe = {{"group:wood", "group:wood"}, {"group:wood", "group:wood"}},
})

-- Minetest Game hides iron and diamonds hundreds of nodes deep; here they lie as deep as in the protocol's game.
minetest.clear_registered_ores()
local function ore(name, rarity, count, size, from, to)
	minetest.register_ore({
		ore_type = "scatter", ore = name, wherein = {"default:stone", "default:desert_stone"},
		clust_scarcity = rarity ^ 3, clust_num_ores = count, clust_size = size, y_min = from, y_max = to,
	})
end
ore("default:stone_with_coal", 9, 9, 3, -128, 128)
ore("default:stone_with_iron", 9, 6, 3, -128, 16)
ore("default:stone_with_copper", 12, 5, 3, -128, 16)
ore("default:stone_with_gold", 13, 4, 3, -128, -24)
ore("default:stone_with_diamond", 13, 4, 3, -128, -32)
ore("default:gravel", 16, 30, 5, -128, 64)

-- What breaks within one step at this speed breaks at the first blow.
local STEP = 0.05
local speed = tonumber(minetest.settings:get("oneiros_break_speed")) or 1
minetest.register_on_mods_loaded(function()
	for name, definition in pairs(minetest.registered_items) do
		local capabilities = definition.tool_capabilities
		if capabilities and capabilities.groupcaps then
			capabilities = table.copy(capabilities)
			for _, group in pairs(capabilities.groupcaps) do
				for rating, seconds in pairs(group.times or {}) do
					seconds = seconds / speed
					group.times[rating] = seconds <= STEP and 0 or seconds
				end
			end
			minetest.override_item(name, {tool_capabilities = capabilities})
		end
	end
end)

local NIGHT = 0.45
local dark = false
minetest.register_globalstep(function()
	local time = minetest.get_timeofday()
	local night = time < 0.215 or time > 0.785
	if night == dark then
		return
	end
	for _, player in ipairs(minetest.get_connected_players()) do
		player:override_day_night_ratio(night and NIGHT or nil)
		dark = night
	end
end)
