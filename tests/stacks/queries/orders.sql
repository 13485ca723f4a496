--! create_order
INSERT INTO orders (item, count) VALUES (:item, :count) RETURNING id;

--! orders_of
SELECT id, count FROM orders WHERE item = :item ORDER BY id;

--! cancel_order
DELETE FROM orders WHERE id = :id;
