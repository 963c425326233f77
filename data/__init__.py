"""Dataset adapters: each yields `data.example.Example`; `data.registry` lists their names."""
