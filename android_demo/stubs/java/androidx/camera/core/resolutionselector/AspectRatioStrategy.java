// A signature, not the library: written by hand to compile against where the library cannot be had. See ../README.md.
package androidx.camera.core.resolutionselector;

import androidx.annotation.NonNull;

public final class AspectRatioStrategy {
    @NonNull public static final AspectRatioStrategy RATIO_4_3_FALLBACK_AUTO_STRATEGY = new AspectRatioStrategy();

    private AspectRatioStrategy() {}
}
