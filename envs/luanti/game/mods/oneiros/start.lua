-- Where an episode begins: on dry land with trees about, as near to the middle of the world as there is such a place.

local WOODED = {deciduous_forest = true, coniferous_forest = true, rainforest = true, savanna = true, taiga = true}
local APART, RINGS, MOST_TRIES = 24, 60, 12
local AROUND, ENOUGH = vector.new(24, 12, 24), 8

local function suitable(x, z)
	local y = minetest.get_spawn_level(x, z)
	if not y or y < 2 or y > 60 then
		return
	end
	local biome = minetest.get_biome_data({x = x, y = y, z = z})
	if biome and WOODED[minetest.get_biome_name(biome.biome)] then
		return vector.new(x, y, z)
	end
end

local function candidates()
	local found = {}
	for ring = 0, RINGS do
		for i = -ring, ring do
			for j = -ring, ring do
				if math.max(math.abs(i), math.abs(j)) == ring then
					found[#found + 1] = suitable(i * APART, j * APART)
					if #found == MOST_TRIES then
						return found
					end
				end
			end
		end
	end
	return found
end

local start, waiting

-- The first picture is given out when the player stands there and the map around it has arrived.
local function begin()
	if start and waiting then
		waiting:set_pos(start)
		waiting:set_look_horizontal(math.rad(90 * (oneiros.memory.shared.seed % 4)))
		waiting:set_look_vertical(0)
		minetest.set_timeofday(0.25)
		oneiros.memory.shared.phase = 1
	end
end

-- The ground there: mountains and blown sand may lie on what the map generator foretells.
local function surface(place)
	for y = place.y - 2, place.y + 40 do
		local under = minetest.registered_nodes[minetest.get_node(vector.new(place.x, y - 1, place.z)).name]
		local feet = minetest.get_node(vector.new(place.x, y, place.z)).name
		local head = minetest.get_node(vector.new(place.x, y + 1, place.z)).name
		local groups = under and under.groups or {}
		if (feet == "air" or feet == "default:snow") and head == "air" and under and under.walkable and not groups.leaves and not groups.tree then
			return vector.new(place.x, y - 0.5, place.z)
		end
	end
end

local function try(places, index)
	local place = places[index]
	local from, to = vector.subtract(place, AROUND), vector.add(place, AROUND)
	minetest.emerge_area(from, to, function(_, _, remaining)
		if remaining > 0 then
			return
		end
		local ground = surface(place)
		local trees = #minetest.find_nodes_in_area(from, to, oneiros.inventory.kinds.log)
		if index == #places or (ground and trees >= ENOUGH) then
			start = ground or place
			return begin()
		end
		try(places, index + 1)
	end)
end

minetest.after(0, function()
	local places = candidates()
	if #places == 0 then
		places = {vector.new(0, minetest.get_spawn_level(0, 0) or 20, 0)}
	end
	minetest.settings:set("static_spawnpoint", minetest.pos_to_string(places[1]))
	try(places, 1)
end)

minetest.register_on_joinplayer(function(player)
	player:hud_set_flags({
		hotbar = false, healthbar = false, crosshair = false, wielditem = true, breathbar = false, minimap = false,
		minimap_radar = false, basic_debug = false,
	})
	player:get_inventory():set_list("main", {})
	waiting = player
	begin()
end)

-- Nothing is written over the picture.
function minetest.send_join_message() end
function minetest.send_leave_message() end
function minetest.get_server_status()
	return ""
end
