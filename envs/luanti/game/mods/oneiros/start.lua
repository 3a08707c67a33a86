-- Where an episode begins: on dry land in a biome with trees, the nearest to the middle of the world.

local TREES = {deciduous_forest = true, coniferous_forest = true, rainforest = true, savanna = true, taiga = true}
local APART, RINGS = 24, 60

local function suitable(x, z)
	local y = minetest.get_spawn_level(x, z)
	if not y or y < 2 or y > 60 then
		return
	end
	local biome = minetest.get_biome_data({x = x, y = y, z = z})
	if biome and TREES[minetest.get_biome_name(biome.biome)] then
		return {x = x, y = y, z = z}
	end
end

local function search()
	for ring = 0, RINGS do
		for i = -ring, ring do
			for j = -ring, ring do
				if math.max(math.abs(i), math.abs(j)) == ring then
					local found = suitable(i * APART, j * APART)
					if found then
						return found
					end
				end
			end
		end
	end
	return {x = 0, y = minetest.get_spawn_level(0, 0) or 20, z = 0}
end

minetest.after(0, function()
	minetest.settings:set("static_spawnpoint", minetest.pos_to_string(search()))
end)

minetest.register_on_joinplayer(function(player)
	player:hud_set_flags({
		hotbar = false, healthbar = false, crosshair = true, wielditem = true, breathbar = false, minimap = false,
		minimap_radar = false, basic_debug = false, chat = false,
	})
	player:set_look_horizontal(math.rad(90 * (oneiros.memory.shared.seed % 4)))
	player:set_look_vertical(0)
	player:get_inventory():set_list("main", {})
	minetest.set_timeofday(0.25)
	oneiros.memory.shared.phase = 1
end)

-- Nothing is written over the picture.
function minetest.get_server_status()
	return ""
end
