"""What a model class is made of: layers, modules, outputs, features."""
