"""What our stages are compared with: loops as people write them, libraries, the floor."""
