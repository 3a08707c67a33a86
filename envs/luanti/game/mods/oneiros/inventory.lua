-- What the player holds, and the items that stand for one another in recipes.

local inventory = {}
oneiros.inventory = inventory

inventory.kinds = {
	log = {"default:tree", "default:jungletree", "default:pine_tree", "default:acacia_tree", "default:aspen_tree"},
	planks = {"default:wood", "default:junglewood", "default:pine_wood", "default:acacia_wood", "default:aspen_wood"},
	stick = {"default:stick"},
	cobblestone = {"default:cobble", "default:desert_cobble", "default:mossycobble"},
	iron_ore = {"default:iron_lump"},
	iron_ingot = {"default:steel_ingot"},
	dirt = {
		"default:dirt", "default:dry_dirt",
		"default:dirt_with_grass", "default:dirt_with_dry_grass", "default:dirt_with_rainforest_litter",
		"default:dirt_with_coniferous_litter", "default:dirt_with_snow", "default:dry_dirt_with_dry_grass",
	},
	crafting_table = {"oneiros:crafting_table"},
	furnace = {"default:furnace"},
	wooden_pickaxe = {"default:pick_wood"},
	stone_pickaxe = {"default:pick_stone"},
	iron_pickaxe = {"default:pick_steel"},
}

local HAND = 1

function inventory.counts(player)
	local counts = {}
	for _, stack in ipairs(player:get_inventory():get_list("main")) do
		if not stack:is_empty() then
			counts[stack:get_name()] = (counts[stack:get_name()] or 0) + stack:get_count()
		end
	end
	return counts
end

-- One item of this kind that is left after what `taken` holds; nil without one.
function inventory.choose(counts, kind, taken)
	for _, name in ipairs(inventory.kinds[kind]) do
		if (counts[name] or 0) > (taken[name] or 0) then
			taken[name] = (taken[name] or 0) + 1
			return name
		end
	end
end

-- Put a tool in the hand; what was there goes to where the tool was.
function inventory.equip(player, kind)
	local held = player:get_inventory()
	for slot, stack in ipairs(held:get_list("main")) do
		if stack:get_name() == inventory.kinds[kind][1] then
			held:set_stack("main", slot, held:get_stack("main", HAND))
			held:set_stack("main", HAND, stack)
			return
		end
	end
end
